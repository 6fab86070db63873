"""Targets a group's devices: inserts executions of a campaign, some thousands at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import asyncpg

from rollwave.domain.ids import CampaignId
from rollwave.errors import RollwaveError
from rollwave.store import campaigns
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.queries import load
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_sql = load("targets")


MAX_DEVICES_PER_BATCH = 10_000
"""Maximum number of devices targeted in one transaction, which locks the campaign for a fifth of a second."""

LOCK_WAIT_SECONDS = 0.5
"""Seconds for which a batch waits for a device that another transaction is inserting into the campaign.

The batch has locked the campaign's row, which that transaction may change next. So this is less than PostgreSQL's
deadlock timeout.
"""


class DeviceLocked(RollwaveError):
    """Another transaction is inserting a device of the batch into the campaign. The same batch can be tried again."""


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
    """The ``devices`` that one statement processed, ``up_to`` the last of them (None: there was none).

    ``skipped``: devices of another type than the firmware's. Existing executions are neither pending nor skipped.
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
    """Target the next ``limit`` members of the group. If the result has fewer ``devices``, there are no more."""
    row = await connection.fetchrow(_sql["insert"], tenant_id, campaign_id, group_id, device_type, after, limit)
    assert row is not None  # an aggregate without GROUP BY has one row
    return Batch(row["devices"], row["up_to"], row["pending"], row["skipped"])


async def first_members(connection: Connection, tenant_id: str, group_id: str, *, limit: int) -> list[str]:
    """The members of the first batch of ``limit`` devices."""
    rows = await connection.fetch(_sql["first_members"], tenant_id, group_id, limit)
    return [row["device_id"] for row in rows]


async def count_members(connection: Connection, tenant_id: str, group_id: str) -> int:
    """The number of devices in the group."""
    members: int = await connection.fetchval(_sql["count_members"], tenant_id, group_id, timeout=SCAN_TIMEOUT_SECONDS)
    return members


async def fits_another(
    connection: Connection, tenant_id: str, group_id: str, device_type: str | None, *, after: str
) -> bool:
    """Whether a member after the device ``after`` has the type that the firmware is for."""
    found: bool = await connection.fetchval(
        _sql["fits_another"], tenant_id, group_id, device_type, after, timeout=SCAN_TIMEOUT_SECONDS
    )
    return found


async def begin(connection: Connection, tenant_id: str, campaign_id: CampaignId, first: Batch, *, members: int) -> None:
    """Record the number of devices. If it is more than the ``first`` batch, mark the campaign as being targeted."""
    marks = (first.devices, first.up_to) if members > first.devices else (None, None)
    await connection.execute(_sql["begin"], tenant_id, campaign_id, members, *marks, first.pending, first.skipped)


async def lock_or_skip(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> Campaign | None:
    """Lock a campaign's row until the transaction ends, and read it. None: it is locked by another one, or deleted."""
    if await connection.fetchval(_sql["lock_or_skip"], tenant_id, campaign_id) is None:
        return None
    return await campaigns.get(connection, tenant_id, campaign_id)


class Targeted(NamedTuple):
    """The total number of a campaign's devices, and the seconds since it was created."""

    devices: int
    seconds: float


async def advance(connection: Connection, campaign: Campaign, batch: Batch, *, last: bool) -> Targeted:
    """Record the progress of targeting. ``last``: all devices are targeted now. Needs the campaign's lock."""
    row = await connection.fetchrow(
        _sql["advance"],
        *(campaign.tenant_id, campaign.id, batch.devices, batch.up_to, last, batch.pending, batch.skipped),
    )
    assert row is not None  # the campaign is locked
    return Targeted(row["total_devices"], row["took"])
