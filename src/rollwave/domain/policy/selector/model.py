"""A selector that was read: comparisons of labels, and how they are combined."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from rollwave.domain.policy.document.located import Position

DEVICE_ID, DEVICE_TYPE, VERSION, TIME_ZONE, LAST_SEEN = "device_id", "device_type", "version", "time_zone", "last_seen"
BUILT_IN = (DEVICE_ID, DEVICE_TYPE, VERSION, TIME_ZONE, LAST_SEEN)
"""Labels that every registered device has, or may have, beside its attributes."""

Value: TypeAlias = str | Decimal | datetime | timedelta
"""What a label is compared with: text, a number, a time, or a time before now (a negative duration)."""


class Operator(StrEnum):
    """How a label is compared."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True)
class Compare:
    """``key operator value``. False if the label is absent, except ``!=``, which is the opposite of ``==``."""

    key: str
    operator: Operator
    value: Value
    at: Position = field(default=Position(1, 1), compare=False)


@dataclass(frozen=True, slots=True)
class OneOf:
    """``key in (values)``. False if the label is absent."""

    key: str
    values: tuple[Value, ...]
    at: Position = field(default=Position(1, 1), compare=False)


@dataclass(frozen=True, slots=True)
class Has:
    """The device has the label. JSON's null is no label."""

    key: str
    at: Position = field(default=Position(1, 1), compare=False)


@dataclass(frozen=True, slots=True)
class Like:
    """The label is text of this form: ``*`` stands for any text. False if the label is absent."""

    key: str
    pattern: str
    at: Position = field(default=Position(1, 1), compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Selector


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Selector, ...]


Comparison: TypeAlias = Compare | OneOf | Has | Like
Selector: TypeAlias = Comparison | Not | AllOf | AnyOf
