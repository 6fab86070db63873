"""Parses a device's report: bytes to a :class:`Report`, or to the reason for refusing it.

Never raises an error for any bytes. ``campaign_id`` and ``status`` are required. Every other key is optional: if its
value cannot be read, it counts as missing, and the status is still applied.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rollwave.domain.execution import REPORTABLE, ExecutionStatus
from rollwave.domain.ids import MAX_BIGINT, CampaignId, DeviceId

MAX_PAYLOAD = 64 * 1024
MAX_ERROR = 1024
MAX_ATTEMPT = 32_767
MAX_VERSION = 128
"""Maximum length of a version in characters."""

MAX_NUMBER = 32
"""Maximum length of a string that is read as a number."""

SHORT, REMEMBERED = 128, 8192
"""Maximum size of a payload whose result is cached, and size of the cache. Devices of a fleet send equal payloads."""


@dataclass(frozen=True, slots=True)
class Report:
    """A device's report. ``progress`` is 0 to 100 or None; ``error`` is at most 1 KB or None.

    ``code``: the kind of a failure, 1 to 64 of ``A-Z 0-9 _``. ``version``: what the device runs, as it says.
    """

    campaign_id: CampaignId
    status: ExecutionStatus
    progress: int | None = None
    error: str | None = None
    attempt: int | None = None
    code: str | None = None
    version: str | None = None


class DeviceReport(NamedTuple):
    """A report, and the device that it is of."""

    device_id: DeviceId
    report: Report


@dataclass(frozen=True, slots=True)
class Rejected:
    """A payload that is no report. ``undecodable``: it is not JSON. False: a value is wrong."""

    reason: str
    undecodable: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    """An empty payload. Clients also send one to clear a retained message."""


def parse(payload: bytes) -> Report | Rejected | Empty:
    """Parse one payload. ``MAX_PAYLOAD`` limits time and memory."""
    return _remembered(payload) if len(payload) <= SHORT else _parse(payload)


def _parse(payload: bytes) -> Report | Rejected | Empty:
    if not payload:
        return Empty()
    if len(payload) > MAX_PAYLOAD:
        return Rejected("payload over 64 KB", undecodable=True)
    try:
        document = _decoder.decode(payload.decode("utf-8"))
        return _read(document) if isinstance(document, dict) else Rejected("not a JSON object")
    except (ValueError, RecursionError) as error:
        return Rejected(f"not JSON: {type(error).__name__}", undecodable=True)


_remembered = lru_cache(maxsize=REMEMBERED)(_parse)


def _read(document: dict[str, Any]) -> Report | Rejected:
    campaign_id = document.get("campaign_id")
    if type(campaign_id) is not int or not 0 < campaign_id <= MAX_BIGINT:
        return Rejected("campaign_id is not a positive integer")
    status = _status(document.get("status"))
    if status is None:
        return Rejected("status is not one of DOWNLOADING, INSTALLING, SUCCESS, FAILED")
    progress = 100 if status is ExecutionStatus.SUCCESS else _progress(document.get("progress"))
    attempt = document.get("attempt")
    if attempt is not None and (type(attempt) is not int or not 0 < attempt <= MAX_ATTEMPT):
        attempt = _attempt(attempt)
    code, version = document.get("code"), document.get("version")
    return Report(
        CampaignId(campaign_id),
        status,
        progress,
        _error(document.get("error")),
        attempt,
        None if code is None else _code(code),
        None if version is None else _version(version),
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("duplicate key")
    return document


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _bounded_int(digits: str) -> int | float:
    # Larger than any id. Thousands of digits are not passed to int(), which would be slow.
    return int(digits) if len(digits) <= 20 else math.inf


# Made once: json.loads makes one for each call that asks for more than the usual.
_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_int=_bounded_int, parse_constant=_no_constant)


def _status(value: object) -> ExecutionStatus | None:
    if not isinstance(value, str) or not value.isascii():
        return None
    word = value.upper()
    return ExecutionStatus(word) if word in REPORTABLE else None


def _progress(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(min(100, max(0, number)))


def _attempt(value: object) -> int | None:
    """The attempt, 1 to ``MAX_ATTEMPT``. None: the report has none, and is judged by its campaign and status only."""
    number = _number(value)
    if number is None or not 0 < number <= MAX_ATTEMPT or number != int(number):
        return None
    return int(number)


def _number(value: object) -> int | float | None:
    """A number, or a string that contains one; None for anything else. ``true`` is no number."""
    if type(value) is int:  # the usual case
        return value
    if isinstance(value, str):
        return float(value) if len(value) <= MAX_NUMBER and _a_number.fullmatch(value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# float() accepts more: "nan", "1_000", digits of other scripts.
_a_number = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)


def _code(value: object) -> str | None:
    return value if isinstance(value, str) and _a_code.fullmatch(value) else None


_a_code = re.compile(r"[A-Z0-9_]{1,64}", re.ASCII)


def _version(value: object) -> str | None:
    """The version, without surrounding blanks. None: it is empty, too long, or has a character that cannot be seen."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text if 0 < len(text) <= MAX_VERSION and text.isprintable() else None


def _error(value: object) -> str | None:
    if value is None:
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:  # writing needs more of the stack than reading
        return None
    return cut(text) or None


def cut(text: str, most: int = MAX_ERROR) -> str:
    """Cut an error's text to a number of bytes of UTF-8, without NUL and halves of surrogate pairs."""
    clean = text.replace("\x00", "")[:most].encode("utf-8", "replace")
    return clean[:most].decode("utf-8", "ignore")
