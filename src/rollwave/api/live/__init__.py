"""Live streams: many people look at a campaign, and it is read once for all of them."""
