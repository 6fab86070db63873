"""The rules of a campaign: read from what is stored, and asked what may go now."""
