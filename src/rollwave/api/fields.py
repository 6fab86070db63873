"""The types of values in requests and responses, each with its rule and its description in OpenAPI."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from rollwave.api import artifact_url
from rollwave.domain.ids import ID_PATTERN, ID_RULE, MAX_BIGINT, is_valid_id
from rollwave.domain.policy.windows import zone_of

MAX_DEPTH = 16
"""Maximum number of nested levels of objects and arrays in a device's attributes."""

MAX_JSON_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader represents exactly (RFC 7493)."""

MAX_URL = 8000
"""Maximum number of characters in a URL. Signed URLs of object stores have some thousands."""

# Patterns are checked by pydantic's regex engine, where `$` is the end of the text. In Python's own `re` it also
# matches before a newline at the end: use `fullmatch` there.
_NO_NUL = r"^[^\x00]*$"  # PostgreSQL stores no NUL character
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_NOT_AT_AN_END = rf"{_CONTROL} \u00a0\u1680\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff"
_WORD = rf"^[^{_NOT_AT_AN_END}]([^{_CONTROL}]*[^{_NOT_AT_AN_END}])?$"
_SHA256 = r"^(([Ss][Hh][Aa]256:)?[0-9A-Fa-f]{64})?$"
_not_text = re.compile("[\x00\ud800-\udfff]")

RULES: Mapping[str, str] = {
    _NO_NUL: "Should not contain NUL characters",
    _SHA256: "Should be 64 hex digits",
    _WORD: "Should have no blank at either end and contain no control characters, such as a newline",
}
"""The error message for each pattern."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _artifact_url(text: str) -> str:
    if wrong := artifact_url.fault(text):
        raise PydanticCustomError("artifact_url", "{fault}", {"fault": wrong})
    return text


def _identifier(text: str) -> str:
    if not is_valid_id(text):
        raise PydanticCustomError("identifier", f"Should be {ID_RULE}")
    return text


def _time_zone(name: str) -> str:
    if zone_of(name) is None:
        raise PydanticCustomError("time_zone", "Should be the IANA name of a time zone, such as Europe/Zurich, or UTC")
    return name


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    if fault := _fault(value, MAX_DEPTH):
        raise PydanticCustomError("json", "Should not contain {fault}", {"fault": fault})
    return value


def _fault(value: Any, depth: int) -> str | None:
    """The part of ``value`` that JSON allows but ``jsonb`` cannot store; None if it can be stored."""
    match value:
        case str():
            return "NUL characters or halves of surrogate pairs" if _not_text.search(value) else None
        case float():
            return None if math.isfinite(value) else "numbers that are not finite"
        case dict() | list():
            if not depth:
                return f"more than {MAX_DEPTH} levels"
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            return next((fault for each in parts if (fault := _fault(each, depth - 1))), None)
        case _:
            return None


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _utc(moment: datetime) -> datetime:
    # A host's own column may have no time zone: such times are UTC by agreement.
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
"""A name for people: 1 to 200 characters."""
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_WORD)]
"""A name that programs and devices compare, such as a version: 1 to 200 characters, none invisible at its ends."""
LongText = Annotated[str, StringConstraints(max_length=2000, pattern=_NO_NUL)]
Cursor = Annotated[str, StringConstraints(max_length=1000, pattern=_NO_NUL)]
Identifier = Annotated[str, AfterValidator(_identifier), WithJsonSchema({"type": "string", "pattern": ID_PATTERN})]
"""An id that may be a level of an MQTT topic."""
Finite = Annotated[float | None, AfterValidator(_finite)]
"""A number in a response. NaN and infinity, which a row written by hand may have, become null: JSON has neither."""
WHOLE = BeforeValidator(_whole)
"""Accepts 5.0 as 5, since JSON has one kind of number. In an annotation it follows the integer's bounds."""
RowId = Annotated[int, Field(ge=1, le=MAX_BIGINT)]

ArtifactUrl = Annotated[
    str,
    StringConstraints(max_length=MAX_URL),
    AfterValidator(_artifact_url),
    WithJsonSchema({"type": "string", "maxLength": MAX_URL, "pattern": artifact_url.URL_PATTERN}),
]
"""URL from which devices download an artifact. The server never downloads it."""
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]
"""64 hex digits, with or without the prefix ``sha256:``. An empty text means no checksum."""
TimeZone = Annotated[str, AfterValidator(_time_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Zurich"]})]
"""An IANA name, such as ``Europe/Zurich``, or ``UTC``."""
Attributes = Annotated[dict[str, Any], AfterValidator(_storable)]
"""Any JSON object that the database can store."""
Moment = Annotated[datetime, AfterValidator(_utc)]
"""An RFC 3339 time in UTC."""
