"""Reads the labels of a few devices as text, for lists and for the causes of failures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from rollwave.domain.overview.causes import labels_of
from rollwave.store import labels
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("device_labels")


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a device as text, and the version that it runs, as it last said."""

    of: dict[str, str]
    version: str | None


NONE = Labels({}, None)
"""Of a device of which nothing is known."""


async def read(connection: Connection, tenant_id: str, device_ids: Sequence[str]) -> dict[str, Labels]:
    """The labels of these devices, by id. A device that nobody registered has none.

    Raises:
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    if not device_ids:
        return {}
    if (await labels.source(connection)).of_host:
        async with labels.reading_view():
            rows = await connection.fetch(_sql["host_labels"], tenant_id, device_ids)
    else:
        rows = await connection.fetch(_sql["labels"], tenant_id, device_ids)
    return {
        row["device_id"]: Labels(
            labels_of(row["device_type"], row["time_zone"], _attributes(row["labels"])),
            row["version"],
        )
        for row in rows
    }


def _attributes(text: str | None) -> Mapping[str, object]:
    """The attributes of a device. Other SQL may have written what is no object, or a number that Python refuses."""
    try:
        read: object = json.loads(text or "{}", parse_float=Decimal)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
