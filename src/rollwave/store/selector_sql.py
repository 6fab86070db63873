"""Compiles a selector to SQL: a condition over a row of labels (``store/labels.py``), under the alias ``l``.

Every value is a parameter of type text (ADR 30). No value of a device can raise an error: a value of a type that a
comparison does not accept counts as absent. ``domain/policy/selector/evaluate.py`` is the same in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from rollwave.domain.policy.selector.model import (
    BUILT_IN,
    LAST_SEEN,
    VERSION,
    AllOf,
    AnyOf,
    Compare,
    Has,
    Like,
    Not,
    OneOf,
    Operator,
    Selector,
    Value,
)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a statement: ``sql`` with numbered parameters, and their values in that order."""

    sql: str
    parameters: tuple[str, ...]


def compile_selector(selector: Selector, first_parameter: int) -> Fragment:
    """A condition that is true or false, never NULL, for each row ``l``. Parameters begin at ``$first_parameter``."""
    parameters = _Parameters(first_parameter)
    return Fragment(_condition(selector, parameters), tuple(parameters.values))


def label_text(key: str, first_parameter: int) -> Fragment:
    """The value of a label of the row ``l`` as text; NULL: the device does not have it, or it is no number or text."""
    parameters = _Parameters(first_parameter)
    if key == LAST_SEEN:
        sql = """to_char(l.last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    elif key in BUILT_IN:
        sql = f"l.{key}"
    else:
        name = parameters.add(key)
        sql = (
            f"CASE jsonb_typeof(l.labels -> {name}) WHEN 'string' THEN l.labels ->> {name}"
            f" WHEN 'number' THEN trim_scale((l.labels ->> {name})::numeric)::text END"
        )
    return Fragment(sql, tuple(parameters.values))


def label_order(key: str, first_parameter: int) -> Fragment:
    """What to ORDER BY for the order of a label of the rows ``l``: numbers, then texts, then devices without it."""
    parameters = _Parameters(first_parameter)
    if key == VERSION:
        sql = 'l.version_key COLLATE "C"'
    elif key == LAST_SEEN:
        sql = "l.last_seen"
    elif key in BUILT_IN:
        sql = f'l.{key} COLLATE "C"'
    else:
        name = parameters.add(key)
        sql = f"{_number(name)}, {_text(name)}"
    return Fragment(sql, tuple(parameters.values))


@dataclass(slots=True)
class _Parameters:
    first: int
    values: list[str] = field(default_factory=list)

    def add(self, value: str) -> str:
        """A reference to a parameter with this value."""
        if value not in self.values:
            self.values.append(value)
        return f"${self.first + self.values.index(value)}::text"


def _condition(selector: Selector, parameters: _Parameters) -> str:
    match selector:
        case AllOf():
            return _joined(selector.parts, " AND ", parameters)
        case AnyOf():
            return _joined(selector.parts, " OR ", parameters)
        case Not():
            return f"NOT ({_condition(selector.part, parameters)})"
        case Has():
            return _has(selector.key, parameters)
        case Compare(operator=Operator.NE):
            return f"NOT {_condition(replace(selector, operator=Operator.EQ), parameters)}"
    return f"COALESCE({_test(selector, parameters)}, false)"


def _test(comparison: Like | OneOf | Compare, parameters: _Parameters) -> str:
    """NULL where the label is absent."""
    match comparison:
        case Like():
            return _like(comparison, parameters)
        case OneOf():
            key, values = comparison.key, comparison.values
            return " OR ".join(_compares(key, Operator.EQ, each, parameters) for each in values)
    return _compares(comparison.key, comparison.operator, comparison.value, parameters)


def _joined(parts: Sequence[Selector], word: str, parameters: _Parameters) -> str:
    return word.join(f"({_condition(each, parameters)})" for each in parts)


def _has(key: str, parameters: _Parameters) -> str:
    if key in BUILT_IN:
        return f"l.{key} IS NOT NULL"
    return f"COALESCE(jsonb_typeof(l.labels -> {parameters.add(key)}) <> 'null', false)"


def _like(like: Like, parameters: _Parameters) -> str:
    label = f'l.{like.key} COLLATE "C"' if like.key in BUILT_IN else _text(parameters.add(like.key))
    pattern = like.pattern
    for each in "\\%_":
        pattern = pattern.replace(each, "\\" + each)
    return rf"{label} LIKE {parameters.add(pattern.replace('*', '%'))} ESCAPE '\'"


def _compares(key: str, operator: Operator, value: Value, parameters: _Parameters) -> str:
    sign = "=" if operator is Operator.EQ else operator
    match value:
        case datetime():
            return f"l.last_seen {sign} {parameters.add(value.isoformat())}::timestamptz"
        case timedelta():
            seconds = f"{value // timedelta(microseconds=1)} microseconds"
            return f"l.last_seen {sign} statement_timestamp() + {parameters.add(seconds)}::interval"
        case Decimal():
            return f"{_number(parameters.add(key))} {sign} {parameters.add(f'{value:f}')}::numeric"
        case str() if key == VERSION:
            # Of the parameter, the key is calculated once, not for each row.
            return f'l.version_key COLLATE "C" {sign} (SELECT rollwave_version_key({parameters.add(value)}))'
        case str() if key in BUILT_IN:
            return f'l.{key} COLLATE "C" {sign} {parameters.add(value)}'
    return f"{_text(parameters.add(key))} {sign} {parameters.add(value)}"


def _text(name: str) -> str:
    """The attribute, if it is text. CASE keeps PostgreSQL from reading a value before its type is checked."""
    return f"""CASE jsonb_typeof(l.labels -> {name}) WHEN 'string' THEN l.labels ->> {name} END COLLATE "C\""""


def _number(name: str) -> str:
    return f"CASE jsonb_typeof(l.labels -> {name}) WHEN 'number' THEN (l.labels ->> {name})::numeric END"
