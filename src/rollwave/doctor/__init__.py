"""Checks an installation, and says how to fix its problems."""
