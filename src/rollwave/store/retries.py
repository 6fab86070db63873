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


class Retried(NamedTuple):
    """A device that gets another attempt, and the attempt that had failed. Segment 0: under flat columns.

    ``budget_values``: its value for each budget of the document (None: it does not have the label); None: no budgets.
    """

    device_id: DeviceId
    attempt: int
    segment: int
    wave: int
    budget_values: Sequence[str | None] | None = None


async def failed(
    connection: Connection, tenant_id: str, campaign_id: int, which: Which, *, after: str, limit: int
) -> list[DeviceId]:
    """Failed devices in the order of their ids, after a given one (empty: from the first)."""
    rows = await connection.fetch(_sql["failed"], tenant_id, campaign_id, after, *which, limit)
    return [row["device_id"] for row in rows]


async def again(
    connection: Connection, tenant_id: str, campaign_id: int, which: Which, devices: Sequence[DeviceId]
) -> list[Retried]:
    """Let these devices be sent another attempt. Locks their rows in the order in which reports lock them.

    Not applied to a device that is no longer one of ``which``.
    """
    rows = await connection.fetch(_sql["again"], tenant_id, campaign_id, devices, *which)
    return [Retried(*row) for row in rows]


async def move_cells(connection: Connection, tenant_id: str, campaign_id: int, devices: Sequence[Retried]) -> None:
    """Count these devices as in flight in their waves and segments. Needs the campaign's lock."""
    placed = Counter((each.wave, each.segment) for each in devices if each.segment)
    if placed:
        cells = sorted(placed)
        waves, segments = [wave for wave, _ in cells], [segment for _, segment in cells]
        numbers = [placed[each] for each in cells]
        await connection.execute(_sql["cells"], tenant_id, campaign_id, waves, segments, numbers)
