"""The rules of a campaign: reading them from its row, and deciding by them which devices may be sent to."""
