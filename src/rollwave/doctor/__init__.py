"""Checks of an installation: what is wrong, and how to fix it."""
