"""Labels of devices, as SQL."""

from __future__ import annotations

from typing import NamedTuple

RELATION = (
    "(SELECT device_id, device_type::text AS device_type, NULL::text AS version, attributes ->> 'time_zone' AS time_zone,"
    " NULL::timestamptz AS last_seen, attributes AS labels FROM devices WHERE tenant_id = $1)"
)


class Fragment(NamedTuple):
    sql: str
    parameters: tuple[object, ...]


def literal(key: str) -> str:
    return "'" + key.replace("'", "''") + "'"


def json_value(key: str) -> str:
    if key in {"device_id", "device_type", "version", "time_zone", "last_seen"}:
        return f"to_jsonb(l.{key})"
    return f"l.labels -> {literal(key)}"


def text_value(key: str) -> str:
    if key in {"device_id", "device_type", "version", "time_zone", "last_seen"}:
        return f"l.{key}::text"
    return f"l.labels ->> {literal(key)}"


def order_of_value(value: str) -> str:
    return f'{value} COLLATE "C"'


def compile_selector(selector: object, first_parameter: int) -> Fragment:
    raise NotImplementedError
