"""A client of the HTTP API, and readable views of a campaign."""
