"""Receives reports from the broker, commits them, and only then acknowledges them."""
