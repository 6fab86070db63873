"""The types of the values in a policy document: how each is read from plain data, written, and shown in the schema.

A value that breaks the rule of its type raises an error of the type ``policy_value``, which the JSON Schema expresses
too; ``policy_rule`` is for what it cannot express.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from rollwave.domain.policy.document import units
from rollwave.domain.policy.document.units import Share
from rollwave.domain.retry import MAX_ATTEMPTS

MAX_COUNT = 2**31 - 1
MAX_NAME, MAX_LABEL, MAX_ZONE = 64, 128, 64
KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.:-]*$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
CODE_PATTERN = r"^[A-Z0-9_]{1,64}$"

T = TypeVar("T")

Lax = Field(strict=False)
"""Words of an enumeration and lists, which strict validation would demand as Python's own types."""


class Rule(BaseModel):
    """A mapping of the document. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def broken_value(text: str) -> PydanticCustomError:
    """The error of a value that the JSON Schema refuses too."""
    return PydanticCustomError("policy_value", "{text}", {"text": text})


def broken_rule(text: str, *at: str | int) -> PydanticCustomError:
    """The error of a rule that the JSON Schema cannot express. ``at``: the path to the key, from where it is raised."""
    return PydanticCustomError("policy_rule", "{text}", {"text": text, "at": at})


def _text(read: Callable[[object], T], write: Callable[[T], str], pattern: str, example: str) -> tuple[Any, ...]:
    def checked(value: object) -> T:
        try:
            return read(value)
        except ValueError as error:
            has_form = isinstance(value, str) and re.fullmatch(pattern, value)
            raise (broken_rule if has_form else broken_value)(str(error)) from error

    schema = {"type": "string", "pattern": pattern, "examples": [example]}
    return BeforeValidator(checked), PlainSerializer(write), WithJsonSchema(schema)


Duration: TypeAlias = Annotated[float, *_text(units.read_duration, units.write_duration, units.DURATION_PATTERN, "30m")]
"""Seconds."""
ShareText: TypeAlias = Annotated[Share, *_text(units.read_share, units.write_share, units.SHARE_PATTERN, "5%")]
Size: TypeAlias = Annotated[int, *_text(units.read_size, units.write_size, units.SIZE_PATTERN, "50MiB")]
"""Bytes."""
Time: TypeAlias = Annotated[
    datetime, *_text(units.read_time, units.write_time, units.TIME_PATTERN, "2027-01-11T08:00:00Z")
]


def _whole(most: int) -> tuple[Any, ...]:
    def checked(value: object) -> int:
        number = int(value) if isinstance(value, float) and value.is_integer() else value  # JSON has one kind of number
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            raise broken_value(f"must be a whole number from 1 to {most:,}")
        return number

    return BeforeValidator(checked), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


Count: TypeAlias = Annotated[int, *_whole(MAX_COUNT)]
Attempts: TypeAlias = Annotated[int, *_whole(MAX_ATTEMPTS)]


def _devices_or_share(value: object) -> int | Share:
    if isinstance(value, str):
        try:
            return units.read_share(value)
        except ValueError as error:
            raise broken_value(str(error)) from error
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_COUNT:
        raise broken_value('must be a number of devices such as 50, or a share such as "5%"')
    return number


Devices: TypeAlias = Annotated[
    int | Share,
    BeforeValidator(_devices_or_share),
    PlainSerializer(lambda value: units.write_share(value) if isinstance(value, Share) else value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_COUNT},
                {"type": "string", "pattern": units.SHARE_PATTERN, "examples": ["5%"]},
            ]
        }
    ),
]
"""A number of devices, or a share of them."""

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
Label: TypeAlias = Annotated[str, Field(max_length=MAX_LABEL, pattern=KEY_PATTERN)]
Code: TypeAlias = Annotated[str, Field(pattern=CODE_PATTERN)]
Zone: TypeAlias = Annotated[str, Field(max_length=MAX_ZONE)]


def _version(value: object) -> int:
    if isinstance(value, bool) or value != 1:
        raise broken_value("must be 1: no other version of the format is known")
    return 1


Version: TypeAlias = Annotated[int, BeforeValidator(_version), WithJsonSchema({"type": "integer", "const": 1})]


def _once(values: Sequence[T]) -> Sequence[T]:
    twice = [value for value, times in Counter(values).items() if times > 1]
    if twice:
        raise broken_value(f"{twice[0]} is given twice")
    return values


ONCE = (AfterValidator(_once), Field(json_schema_extra={"uniqueItems": True}))
"""Each item of a list is given once."""


def named(word: str) -> BeforeValidator:
    """Give each item of a list that has no name one: ``word`` and its place, from 1."""

    def with_names(items: object) -> object:
        if not isinstance(items, list):
            return items
        return [
            {"name": f"{word}-{place}", **item} if isinstance(item, dict) else item
            for place, item in enumerate(items, 1)
        ]

    return BeforeValidator(with_names)


def require_unique(items: Sequence[Any], key: str) -> None:
    """Check that no two items of the list at ``key`` have the same name."""
    names = [each.name for each in items]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise broken_rule(f"the name {name} is given twice", key, number, "name")
