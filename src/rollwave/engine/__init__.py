"""The edges that drive the rules: what is claimed, sent, taken in, swept, concluded."""
