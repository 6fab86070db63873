"""The units of a policy document: durations, shares, sizes in bytes, and times."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil

DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,3})?(s|m|h|d)$"
SHARE_PATTERN = r"^(100(\.0{1,9})?|[0-9]{1,2}(\.[0-9]{1,9})?)%$"
SIZE_PATTERN = r"^[0-9]{1,19}(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[-+][0-9]{2}:[0-9]{2})$"

LONGEST_DURATION_SECONDS = 365 * 86_400.0
LARGEST_SIZE_BYTES = 2**60
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@dataclass(frozen=True, slots=True, order=True)
class Share:
    """A share of something, exact: ``Share(Fraction(1, 20))`` is 5 %."""

    fraction: Fraction

    @classmethod
    def percent(cls, number: int) -> Share:
        """``number`` hundredths."""
        return cls(Fraction(number, 100))

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


def write_duration(seconds: float) -> str:
    """The text of a duration, in the largest unit in which it is a whole number."""
    thousandths = round(seconds * 1000)
    unit = next((unit for unit in reversed(_SECONDS) if thousandths % (1000 * _SECONDS[unit]) == 0), "s")
    return f"{_digits(Decimal(thousandths) / 1000 / _SECONDS[unit])}{unit}" if thousandths else "0s"


def read_share(text: object) -> Share:
    """The share that a text such as ``"5%"`` or ``"0.5%"`` says.

    Raises:
        ValueError: it is something else, or over 100 %.
    """
    if not isinstance(text, str) or not re.fullmatch(SHARE_PATTERN, text):
        raise ValueError(f'{_shown(text)} is not a share from 0 to 100 % such as "5%" or "0.5%"')
    return Share(Fraction(text[:-1]) / 100)


def write_share(share: Share) -> str:
    """The text of a share that :func:`read_share` has read."""
    percent = share.fraction * 100
    return f"{_digits(Decimal(percent.numerator) / Decimal(percent.denominator))}%"


def read_size(text: object) -> int:
    """Bytes of a size such as ``50MiB``.

    Raises:
        ValueError: it is something else, less than a byte, or over an exbibyte.
    """
    if not isinstance(text, str) or not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError(f"{_shown(text)} is not a size such as 50MiB: use one of {', '.join(_BYTES)}")
    unit = text.lstrip("0123456789.")
    size = int(Decimal(text.removesuffix(unit)) * _BYTES[unit])
    if not 1 <= size <= LARGEST_SIZE_BYTES:
        raise ValueError(f"{text} is not from one byte to 2**60 bytes")
    return size


def write_size(size: int) -> str:
    """The text of a number of bytes, in the largest unit in which it is a whole number."""
    unit = next(unit for unit in reversed(_BYTES) if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


def read_time(text: object) -> datetime:
    """A time as RFC 3339 has it, with a zone: ``2027-01-11T08:00:00Z``. Fractions after microseconds are cut off.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(text, str) or not re.fullmatch(TIME_PATTERN, text):
        raise ValueError(f"{_shown(text)} is not a time with a zone such as 2027-01-11T08:00:00Z")
    try:
        found = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text.upper()))
        found.astimezone(UTC)  # the first and the last day that exist may be outside in another zone
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text} is not a time: {error}") from error
    return found


def write_time(moment: datetime) -> str:
    """The text of an aware time, in its own zone."""
    return moment.isoformat().replace("+00:00", "Z")


def _digits(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:40] + "…") if isinstance(value, str) else text[:40]
