"""How values look on pages. Available in templates as ``t``; the texts of rules are made in the domain."""

from __future__ import annotations

import json
from datetime import UTC, datetime

NONE = "\N{EN DASH}"
"""Stands for a value that does not exist."""
THIN = "\N{NARROW NO-BREAK SPACE}"


def number(value: int | None) -> str:
    """A whole number with commas between thousands; a dash for None."""
    return NONE if value is None else f"{value:,}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 device", "1,200 devices"."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def share(value: float | None, digits: int = 0) -> str:
    """A share from 0 to 1 as a percentage: 0.65 is "65 %". 100 % and 0 % only if they are exact."""
    if value is None:
        return NONE
    shown = round(value * 100, digits)
    step = 10.0**-digits
    if value < 1 and shown >= 100:
        shown = 100 - step
    if value > 0 and shown <= 0:
        return f"under {step:.{digits}f}{THIN}%"
    return f"{shown:.{digits}f}{THIN}%"


def visible(text: str) -> str:
    """Text from devices or people, with control characters and invisible characters spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def lines(text: str) -> str:
    """Text of several lines: as :func:`visible`, but its line breaks stay."""
    return "\n".join(visible(line) for line in text.split("\n"))


def plain(value: object) -> str:
    """A value of JSON as text: text as it is, anything else as JSON."""
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def sentence(text: str) -> str:
    """A clause as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def utc(value: datetime | str | None) -> str:
    """A time to the second in UTC: "2026-11-29 00:15:23 UTC"; a dash for None."""
    moment = _moment(value)
    return NONE if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def brief(value: datetime, now: datetime | None = None) -> str:
    """A time to the minute in UTC, with its date if that is not today: "01:24 UTC". ``now``: None: the present."""
    there, today = value.astimezone(UTC), (now or datetime.now(UTC)).astimezone(UTC)
    return f"{there:%H:%M} UTC" if there.date() == today.date() else f"{there:%Y-%m-%d %H:%M} UTC"


def iso(value: datetime | str | None) -> str:
    """A time for the attribute ``datetime``."""
    moment = _moment(value)
    return "" if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(value: datetime | str | None) -> datetime | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return None if value is None else value.astimezone(UTC)


def duration(seconds: float | None) -> str:
    """A span of time with its two largest units: "3 min 20 s", "2 d 4 h"; a dash for None."""
    if seconds is None:
        return NONE
    left = max(0, round(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, length)
        parts.append((amount, unit))
    first = next((index for index, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2] if amount) or "0 s"


def size(octets: int | None) -> str:
    """A number of bytes: "512 B", "3.4 MB"."""
    if octets is None:
        return NONE
    amount = float(octets)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
