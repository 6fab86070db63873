"""The labels of devices, read from the registry, and the segments into which a document splits devices by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Json: TypeAlias = Mapping[str, Any]

BUILT_IN = ("device_type", "time_zone", "version")


async def read_labels(connection: Connection) -> dict[str, dict[str, Json]]:
    """The labels of every registered device, by tenant and device id.

    A field of the registry is a label; where it is empty, an attribute of its name stands for it.
    """
    rows = await connection.fetch(
        "SELECT d.tenant_id, d.device_id, d.device_type, f.time_zone, f.version, d.attributes::text AS attributes"
        " FROM devices d LEFT JOIN rollwave_device_fields f USING (tenant_id, device_id)"
    )
    found: dict[str, dict[str, Json]] = {}
    for row in rows:
        labels: dict[str, Any] = json.loads(row["attributes"])
        labels |= {key: row[key] for key in BUILT_IN if row[key]}
        found.setdefault(row["tenant_id"], {})[row["device_id"]] = labels | {"device_id": row["device_id"]}
    return found


def group_of(keys: Iterable[str], labels: Json) -> Mapping[str, str | None]:
    """The values of some labels; None: the device does not have the label."""
    return {key: _text(labels.get(key)) for key in keys}


def segment_of(document: Json, labels: Json) -> Mapping[str, str | None]:
    """The labels of the segment of a device: those that guardrails of segments mention, and its zone if windows do."""
    keys = {
        key
        for each in document.get("guardrails") or []
        if each.get("scope") == "segment"
        for key in each.get("per") or []
    }
    if uses_zones(document):
        keys.add("time_zone")
    return group_of(sorted(keys), labels)


def uses_zones(document: Json) -> bool:
    """Whether a window opens by the time zone of each device."""
    windows = (document.get("schedule") or {}).get("windows") or []
    return any("cron" in each and each.get("time_zone") == "device" for each in windows)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else None
