"""The units of a policy document: durations, shares, sizes in bytes, and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil

DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(s|m|h|d)$"
SHARE_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,9})?%$"
SIZE_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)$"

LONGEST_DURATION_SECONDS = 365 * 86_400.0
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,9})?(?P<zone>[Zz]|[-+]\d\d:\d\d)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """A share of something, exact: ``Share(Fraction(1, 20))`` is 5 %."""

    fraction: Fraction

    def of(self, devices: int) -> int:
        """So many of ``devices``: rounded up, and at least 1."""
        return max(1, ceil(self.fraction * devices))

    def __float__(self) -> float:
        """From 0 to 1."""
        return float(self.fraction)


def read_duration(text: object) -> float:
    """Seconds of a duration such as ``90s``, ``30m``, ``2h`` or ``1d``.

    Raises:
        ValueError: it is something else, or longer than a year.
    """
    if not isinstance(text, str) or not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{_shown(text)} is not a duration such as 90s, 30m, 2h or 1d")
    seconds = float(Decimal(text[:-1]) * _SECONDS[text[-1]])
    if seconds > LONGEST_DURATION_SECONDS:
        raise ValueError(f"{text} is longer than a year")
    return seconds


def read_share(text: object) -> Share:
    """The share that a text such as ``"5%"`` or ``"0.5%"`` says.

    Raises:
        ValueError: it is something else, or over 100 %.
    """
    if not isinstance(text, str) or not re.fullmatch(SHARE_PATTERN, text):
        raise ValueError(f'{_shown(text)} is not a share such as "5%" or "0.5%"')
    share = Share(Fraction(text[:-1]) / 100)
    if share.fraction > 1:
        raise ValueError(f"{text} is over 100 %")
    return share


def read_size(text: object) -> int:
    """Bytes of a size such as ``50MiB``.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(text, str) and re.fullmatch(SIZE_PATTERN, text):
        digits, unit = re.match(r"([0-9.]+)(\w+)", text).groups()  # type: ignore[union-attr]
        return int(Decimal(digits) * _BYTES[unit])
    raise ValueError(f"{_shown(text)} is not a size such as 50MiB: use one of {', '.join(_BYTES)}")


def read_time(text: object) -> datetime:
    """A time as RFC 3339 has it, with a zone: ``2027-01-11T08:00:00Z``.

    Raises:
        ValueError: it is something else.
    """
    found = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{_shown(text)} is not a time with a zone such as 2027-01-11T08:00:00Z")
    fraction = (found["fraction"] or "")[:7]
    zone = "+00:00" if found["zone"] in "Zz" else found["zone"]
    try:
        return datetime.fromisoformat(f"{found['date']}T{found['time']}{fraction}{zone}")
    except ValueError as error:
        raise ValueError(f"{text} is not a time: {error}") from error


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:40] + "…") if isinstance(value, str) else text[:40]
