"""A group's devices become a campaign's executions, some thousands at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from rollwave.domain.ids import CampaignId
from rollwave.errors import RollwaveError
from rollwave.store import campaigns
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.queries import load
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("targets")


MAX_DEVICES_PER_BATCH = 10_000
"""Devices targeted in one transaction: a fifth of a second, for which nobody else moves the campaign."""

LOCK_WAIT_SECONDS = 0.5
"""Seconds for which a batch waits for a device that somebody else is writing into the campaign.

The batch holds the campaign's row, which they may change next: less than PostgreSQL takes to detect a deadlock.
"""


class DeviceLocked(RollwaveError):
    """Another transaction is writing a device of the batch into the campaign. The same batch works a little later."""


@asynccontextmanager
async def transaction(pool: Pool, tenant_id: str) -> AsyncIterator[Connection]:
    """A transaction of the tenant that waits ``LOCK_WAIT_SECONDS`` for a lock.

    Raises:
        DeviceLocked: it did not get a lock in that time.
    """
    try:
        async with tenant_transaction(pool, tenant_id, lock_timeout=LOCK_WAIT_SECONDS) as connection:
            yield connection
    except asyncpg.LockNotAvailableError as error:
        raise DeviceLocked("a device is locked by another transaction") from error


@dataclass(frozen=True, slots=True)
class Batch:
    """Members that one statement went over, ``up_to`` the last of them (None: there was none).

    Those that are ``skipped`` are of another type than the firmware's. What was an execution already is neither.
    """

    devices: int
    up_to: str | None
    pending: int
    skipped: int


async def insert(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    group_id: str,
    device_type: str | None,
    *,
    after: str = "",
    limit: int,
) -> Batch:
    """Target the next ``limit`` members of the group. Fewer ``devices`` than that: there are no more."""
    row = await connection.fetchrow(_sql["insert"], tenant_id, campaign_id, group_id, device_type, after, limit)
    assert row is not None  # an aggregate without GROUP BY has one row
    return Batch(row["devices"], row["up_to"], row["pending"], row["skipped"])


async def first_members(connection: Connection, tenant_id: str, group_id: str, *, limit: int) -> list[str]:
    """The members that the first batch of ``limit`` devices goes over."""
    rows = await connection.fetch(_sql["first_members"], tenant_id, group_id, limit)
    return [row["device_id"] for row in rows]


async def count_members(connection: Connection, tenant_id: str, group_id: str) -> int:
    """How many devices the group has."""
    members: int = await connection.fetchval(_sql["count_members"], tenant_id, group_id, timeout=SCAN_TIMEOUT_SECONDS)
    return members


async def fits_another(
    connection: Connection, tenant_id: str, group_id: str, device_type: str | None, *, after: str
) -> bool:
    """Whether firmware for this type of devices fits a member that comes after the device ``after``."""
    found: bool = await connection.fetchval(
        _sql["fits_another"], tenant_id, group_id, device_type, after, timeout=SCAN_TIMEOUT_SECONDS
    )
    return found


async def begin(connection: Connection, tenant_id: str, campaign_id: CampaignId, first: Batch, *, members: int) -> None:
    """Record how many devices the campaign targets; where those are more than the ``first`` batch, mark it."""
    marks = (first.devices, first.up_to) if members > first.devices else (None, None)
    await connection.execute(_sql["begin"], tenant_id, campaign_id, members, *marks, first.pending, first.skipped)


async def lock_or_skip(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> Campaign | None:
    """Read a campaign and hold its row until the transaction ends. None: somebody else holds it, or it is gone."""
    if await connection.fetchval(_sql["lock_or_skip"], tenant_id, campaign_id) is None:
        return None
    return await campaigns.get(connection, tenant_id, campaign_id)


class Targeted(NamedTuple):
    """A campaign's devices in all, and the seconds since it was created."""

    devices: int
    seconds: float


async def advance(connection: Connection, campaign: Campaign, batch: Batch, *, last: bool) -> Targeted:
    """Count the batch; the ``last`` one takes the mark away. Needs the campaign's lock."""
    row = await connection.fetchrow(
        _sql["advance"],
        *(campaign.tenant_id, campaign.id, batch.devices, batch.up_to, last, batch.pending, batch.skipped),
    )
    assert row is not None  # its lock is held
    return Targeted(row["total_devices"], row["took"])
