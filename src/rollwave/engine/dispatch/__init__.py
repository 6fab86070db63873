"""Sends commands: claims devices, publishes their commands, and records what the broker answered."""
