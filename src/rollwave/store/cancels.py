"""Cancelled campaigns: which of their devices are still to be told, claimed by one worker at a time.

The row of each device says whether it was told, so any number of workers may tell them, and a worker that dies leaves a
claim that runs out.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.ids import DeviceId
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.executions import Claimed
from rollwave.store.queries import load

_sql = load("cancels")


async def request(connection: Connection, tenant_id: str, campaign_id: int) -> int | None:
    """Let workers tell the devices in flight of an ABORTED campaign. Returns their number.

    None: the campaign was cancelled before.
    """
    devices: int | None = await connection.fetchval(_sql["request"], tenant_id, campaign_id)
    return devices


async def due_in(connection: Connection, tenant_id: str, campaign_id: int) -> float | None:
    """Seconds until the next devices may be claimed, 0 or less: now. None: the campaign was not cancelled.

    Locks the campaign's row.
    """
    seconds: float | None = await connection.fetchval(_sql["due_in"], tenant_id, campaign_id)
    return seconds


async def claim(
    connection: Connection, campaign: Campaign, *, limit: int, lease: float, next_in: float
) -> tuple[Claimed, ...]:
    """Claim up to ``limit`` devices for ``lease`` seconds. The next ones may be claimed in ``next_in`` seconds.

    Empty: no device can be told now. Needs the campaign's lock.
    """
    rows = await connection.fetch(_sql["claim"], campaign.tenant_id, campaign.id, limit, lease, next_in)
    return tuple(Claimed(*row) for row in rows)


async def next_due(connection: Connection, campaign: Campaign) -> float | None:
    """Seconds until a device may have to be told; None: every device was told, or is terminal."""
    seconds: float | None = await connection.fetchval(_sql["next_due"], campaign.tenant_id, campaign.id)
    return seconds


async def mark(connection: Connection, tenant_id: str, campaign_id: int, told: Sequence[DeviceId]) -> None:
    """Record that these devices were told. Not applied to a device that was deleted."""
    await connection.execute(_sql["mark"], tenant_id, campaign_id, told)


async def release(
    connection: Connection, tenant_id: str, campaign_id: int, untold: Sequence[DeviceId], *, delay: float
) -> None:
    """Let these devices be claimed again after ``delay`` seconds. Not applied to a device that was told meanwhile."""
    await connection.execute(_sql["release"], tenant_id, campaign_id, untold, delay)
