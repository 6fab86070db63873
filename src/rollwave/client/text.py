"""Make strings from outside safe to show on a terminal."""

from __future__ import annotations

_SECONDS_UP_TO = 100
_MINUTES_UP_TO = 100


def visible(text: str) -> str:
    """``text`` with control characters and invisible characters escaped."""
    return "".join(char if char.isprintable() else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def duration(seconds: float) -> str:
    """Seconds in a readable form: ``42 s``, ``3 min``, ``2 h 05``."""
    if seconds < _SECONDS_UP_TO:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < _MINUTES_UP_TO else f"{minutes // 60} h {minutes % 60:02}"
