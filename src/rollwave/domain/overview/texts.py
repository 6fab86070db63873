"""Numbers, shares, times and durations as words, the same everywhere."""

from __future__ import annotations

from datetime import UTC, datetime

_SECONDS_UP_TO = 100
_MINUTES_UP_TO = 100
_HOURS_UP_TO = 48


def percent(share: float) -> str:
    """A share, 0 to 1, in percent: ``12.3 %``."""
    return f"{share * 100:.3g} %"


def many(number: int, noun: str) -> str:
    """A number of things: ``1 device``, ``1,200 devices``. ``noun``: in the singular, with a regular plural."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def are(number: int) -> str:
    """The verb after a number of things: ``is`` or ``are``."""
    return "is" if number == 1 else "are"


def duration(seconds: float) -> str:
    """Seconds in a readable form: ``42 s``, ``3 min``, ``2 h 5 min``, ``3 d``."""
    if seconds < _SECONDS_UP_TO:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < _MINUTES_UP_TO:
        return f"{minutes} min"
    if minutes < _HOURS_UP_TO * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{minutes // (24 * 60)} d"


def utc(moment: datetime) -> str:
    """A time with its date, in UTC: ``2027-03-01 14:05 UTC``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def after_colon(text: str | None) -> str:
    """A reason to append to a sentence. Empty: there is none."""
    return f": {text}" if text else ""
