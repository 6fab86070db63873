"""Devices that an operator gives another attempt after they have failed for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rollwave.domain.ids import DeviceId
from rollwave.domain.retry import Reason
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("retries")


class Which(NamedTuple):
    """Failed devices: those whose last attempt failed for this reason and with this code. None: any."""

    reason: Reason | None = None
    code: str | None = None


class Moved(NamedTuple):
    """A number of devices of one wave and segment. Segment 0: the campaign follows flat columns.

    ``budget_values``: the value that each of them has for each budget of the document (None: no such label).
    """

    segment: int
    wave: int
    devices: int
    budget_values: Sequence[str | None] = ()


async def failed(
    connection: Connection, tenant_id: str, campaign_id: int, which: Which, *, after: str, limit: int
) -> list[DeviceId]:
    """Failed devices in the order of their ids, after a given one (empty: from the first)."""
    rows = await connection.fetch(_sql["failed"], tenant_id, campaign_id, after, *which, limit)
    return [row["device_id"] for row in rows]


async def again(
    connection: Connection, tenant_id: str, campaign_id: int, which: Which, devices: Sequence[DeviceId]
) -> list[Moved]:
    """Let these devices be sent another attempt. Locks their rows in the order in which reports lock them.

    Not applied to a device that is no longer one of ``which``.
    """
    rows = await connection.fetch(_sql["again"], tenant_id, campaign_id, devices, *which)
    return [Moved(row["segment"], row["wave"], row["devices"], row["budget_values"] or ()) for row in rows]


async def move_cells(connection: Connection, tenant_id: str, campaign_id: int, moved: Sequence[Moved]) -> None:
    """Count these devices as in flight in their waves and segments. Needs the campaign's lock."""
    counted: Counter[tuple[int, int]] = Counter()
    for each in moved:
        counted[each.wave, each.segment] += each.devices
    placed = sorted((wave, segment, devices) for (wave, segment), devices in counted.items() if segment)
    if placed:
        columns = [list(column) for column in zip(*placed, strict=True)]
        await connection.execute(_sql["cells"], tenant_id, campaign_id, *columns)
