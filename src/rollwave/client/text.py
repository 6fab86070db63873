"""Make strings from outside safe to show on a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """``text`` with control characters and invisible characters escaped."""
    return "".join(char if char.isprintable() else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
