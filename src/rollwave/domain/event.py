"""The base of all events, and how their fields are stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Stored:
    """How a field is stored in ``detail``: its meaning, its unit, and its key if that is not the field's name."""

    meaning: str
    unit: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A field of an event as it is stored. ``kind``: the type of its value; ``optional``: it may be missing."""

    name: str
    key: str
    kind: type
    optional: bool
    stored: Stored


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a campaign, or to one of its devices.

    ``device_id`` is None if the event is about the campaign as a whole. ``more``: fields that another version wrote.
    """

    word: ClassVar[str] = ""

    device_id: str | None = field(default=None, kw_only=True)
    more: Mapping[str, object] = field(default_factory=dict, kw_only=True)

    def to_detail(self) -> dict[str, object]:
        """The JSON object that is stored in history, without fields that are None."""
        values = ((each.key, getattr(self, each.name)) for each in columns_of(type(self)))
        return {**{key: value for key, value in values if value is not None}, **self.more}

    @classmethod
    def from_detail(cls, detail: Mapping[str, object], device_id: str | None = None) -> Self:
        """Read the JSON object that :meth:`to_detail` of this or another version made.

        Raises:
            ValueError: a field is missing, or its value has another type.
        """
        known = columns_of(cls)
        values: dict[str, Any] = {each.name: _value(each, detail.get(each.key)) for each in known}
        keys = {each.key for each in known}
        more = {key: value for key, value in detail.items() if key not in keys}
        return cls(device_id=device_id, more=more, **values)


def _is_stored(hint: Any) -> bool:
    return any(isinstance(each, Stored) for each in getattr(hint, "__metadata__", ()))


def _column(name: str, hint: Any) -> Column:
    of, stored = get_args(hint)
    kinds = get_args(of) if get_origin(of) is UnionType else (of,)
    return Column(name, stored.key or name, get_origin(kinds[0]) or kinds[0], NoneType in kinds, stored)


def _value(column: Column, value: object) -> object:
    if value is None and column.optional:
        return None
    if issubclass(column.kind, StrEnum):
        return column.kind(str(value))
    if isinstance(value, column.kind) and isinstance(value, bool) is (column.kind is bool):
        return value
    if column.kind is float and type(value) is int:
        return value
    raise ValueError(f"{column.key} is {value!r}")


_COLUMNS: dict[type[Event], tuple[Column, ...]] = {}


def columns_of(kind: type[Event]) -> tuple[Column, ...]:
    """The fields of an event class in ``detail``, in their order."""
    if kind not in _COLUMNS:
        hints = get_type_hints(kind, include_extras=True)
        _COLUMNS[kind] = tuple(
            _column(each.name, hints[each.name]) for each in fields(kind) if _is_stored(hints[each.name])
        )
    return _COLUMNS[kind]
