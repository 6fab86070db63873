"""Whether a selector matches a device: the reference for what the store compiles to SQL."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeAlias

from rollwave.domain.policy.selector.model import (
    BUILT_IN,
    TIME_ZONE,
    VERSION,
    AllOf,
    AnyOf,
    Comparison,
    Has,
    Like,
    Not,
    OneOf,
    Operator,
    Selector,
    Value,
)
from rollwave.domain.policy.selector.versions import VersionKey, version_key

Labels: TypeAlias = Mapping[str, object]
"""The labels of a device by key: ``last_seen`` is a datetime, the other built-ins are text, attributes are JSON."""

_HOLDS_FOR: Mapping[Operator, Container[int | None]] = {
    Operator.EQ: {0},
    Operator.NE: {-1, 1, None},
    Operator.LT: {-1},
    Operator.LE: {-1, 0},
    Operator.GT: {1},
    Operator.GE: {0, 1},
}
"""The results of :func:`_order` for which a comparison holds."""

_Comparable: TypeAlias = str | Decimal | datetime | VersionKey


def labels_of(attributes: Mapping[str, object], **built_in: object) -> Labels:
    """A registered device's labels: its attributes and the built-ins that it has.

    An attribute ``version`` or ``time_zone`` stands in where the built-in is None. No attribute stands in for the
    other built-ins.
    """
    stands_in = {key: attributes[key] for key in (VERSION, TIME_ZONE) if isinstance(attributes.get(key), str)}
    own = {key: value for key, value in attributes.items() if key not in BUILT_IN}
    return {**own, **stands_in, **{key: value for key, value in built_in.items() if value is not None}}


def evaluate(selector: Selector, labels: Labels, now: datetime) -> bool:
    """Whether the selector matches a device with these labels. ``now``: from which times such as ``-7d`` count."""
    match selector:
        case AllOf():
            return all(evaluate(each, labels, now) for each in selector.parts)
        case AnyOf():
            return any(evaluate(each, labels, now) for each in selector.parts)
        case Not():
            return not evaluate(selector.part, labels, now)
    return _holds(selector, labels.get(selector.key), now)


def _holds(comparison: Comparison, label: object, now: datetime) -> bool:
    match comparison:
        case Has():
            return label is not None
        case Like():
            return isinstance(label, str) and _is_like(label, comparison.pattern)
        case OneOf():
            return any(_order(comparison.key, label, value, now) == 0 for value in comparison.values)
    return _order(comparison.key, label, comparison.value, now) in _HOLDS_FOR[comparison.operator]


def _order(key: str, label: object, value: Value, now: datetime) -> int | None:
    """-1, 0 or 1: the label is less, equal or greater. None: it counts as absent."""
    match (_comparable(key, label, now), _comparable(key, value, now)):
        case (Decimal() as left, Decimal() as right):
            return (left > right) - (left < right)
        case (datetime() as left, datetime() as right):
            return (left > right) - (left < right)
        case (str() as left, str() as right):
            return (left > right) - (left < right)
        case (tuple() as left, tuple() as right):
            return (left > right) - (left < right)
    return None


def _comparable(key: str, value: object, now: datetime) -> _Comparable | None:
    match value:
        case bool():
            return None
        case int() | float() | Decimal():
            return Decimal(str(value))
        case str():
            return version_key(value) if key == VERSION else value
        case datetime():
            return value
        case timedelta():
            return now + value
    return None


def _is_like(text: str, pattern: str) -> bool:
    first, *middle = pattern.split("*")
    if not middle:
        return text == first
    last = middle.pop()
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for each in middle:
        found = text.find(each, position, end)
        if found < 0:
            return False
        position = found + len(each)
    return True
