"""Sending: a claim under the campaign's lock, the commands to the broker, what became of them."""
