"""What people and programs look at: campaigns with their progress, devices, history. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import asyncpg

from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import UNADDRESSABLE
from rollwave.domain.policy.facts import DeviceFacts
from rollwave.domain.retry import DeviceTime
from rollwave.errors import NotFound
from rollwave.store.database import IN_TURN, Connection, Pool, tenant_transaction
from rollwave.store.executions import STATUS
from rollwave.store.moments import Document, with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load

_sql = load("views")

LOOKED_FOR = frozenset({ExecutionStatus.FAILED, ExecutionStatus.SKIPPED, ExecutionStatus.INSTALLING})
"""States of which devices are found at once, however few they are (``devices_looked_for``)."""

UNFINISHED = frozenset({ExecutionStatus.PENDING, ExecutionStatus.DOWNLOADING, ExecutionStatus.INSTALLING})
FEW = 5000
"""Unfinished devices of a campaign that are read for a page of some of them (``devices_unfinished``), at most."""


MOST_COUNTED = 10_000
"""Devices that *waiting* and *explain* count along a queue, and events that they read back, at most."""


@dataclass(frozen=True, slots=True)
class ClaimedGroup:
    """``devices`` that were claimed, are ``PENDING``, and are alike to the gates; ``first`` is the one due first."""

    devices: int
    first: DeviceFacts


@dataclass(frozen=True, slots=True)
class Pending:
    """A campaign's ``PENDING`` devices: in all, and the ``claimed`` ones among them."""

    devices: int
    claimed: tuple[ClaimedGroup, ...]


async def campaign(pool: Pool, tenant_id: str, campaign_id: int) -> Document:
    """One campaign with ``firmware_*``, ``waves`` and ``status_breakdown`` (every status, 0 included).

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        return await _campaign(connection, tenant_id, campaign_id)


async def _campaign(connection: Connection, tenant_id: str, campaign_id: int) -> Document:
    row = await connection.fetchrow(_sql["campaign"], tenant_id, campaign_id)
    if row is None:
        raise _missing(campaign_id)
    counted = json.loads(row["status_breakdown"] or "{}")
    # Rows that somebody else's SQL wrote are counted within a minute; until then there may be fewer than none.
    breakdown = {status.value: max(0, counted.get(status, 0)) for status in ExecutionStatus}
    ended = {"succeeded": breakdown["SUCCESS"], "failed": breakdown["FAILED"]}
    shown = {**with_moments(row), **ended}
    return {**shown, "status_breakdown": breakdown, "waves": json.loads(row["waves"] or "[]")}


async def campaigns(
    pool: Pool, tenant_id: str, *, status: CampaignStatus | None, limit: int, cursor: int | None = None
) -> Page:
    """Campaigns, newest first; ``status`` None: in every state."""
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["campaigns"], tenant_id, status, cursor, limit + 1)
        total = await connection.fetchval(_sql["count_campaigns"], tenant_id, status)
    return page(records, total, limit=limit, key="id")


async def devices(
    pool: Pool,
    tenant_id: str,
    campaign_id: int,
    *,
    status: ExecutionStatus | None,
    limit: int,
    cursor: str | None = None,
) -> Page:
    """The devices of a campaign by id; ``status`` None: in every state.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        breakdown = (await _campaign(connection, tenant_id, campaign_id))["status_breakdown"]
        total = breakdown[status] if status else sum(breakdown.values())
        statement = _devices_statement(status, breakdown)
        if statement == "devices_unfinished":
            await connection.execute(IN_TURN)
        # What nobody is in is not looked for: that would be to read the whole campaign.
        arguments = tenant_id, campaign_id, status, cursor, limit + 1
        records = await connection.fetch(_sql[statement], *arguments) if total else []
    return page(records, total, limit=limit, key="device_id")


def _devices_statement(status: ExecutionStatus | None, breakdown: Mapping[str, int]) -> str:
    if status in LOOKED_FOR:
        return "devices_looked_for"
    few_left = sum(breakdown[each] for each in UNFINISHED) <= FEW
    return "devices_unfinished" if status in UNFINISHED and few_left else "devices"


async def events(pool: Pool, tenant_id: str, campaign_id: int, *, after: int = 0, limit: int) -> list[Document]:
    """What happened to a campaign after the event ``after``, oldest first.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        await _require(connection, tenant_id, campaign_id)
        records = await connection.fetch(_sql["events"], tenant_id, campaign_id, after, limit)
    return [_event(record) for record in records]


async def pending(connection: Connection, tenant_id: str, campaign_id: int) -> Pending:
    """How many devices are ``PENDING``, by the campaign's counters, and what those of them wait for that were claimed.

    Looks at no more than ``MOST_COUNTED`` executions; the claimed ones beyond these count as being sent to.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    shown = await _campaign(connection, tenant_id, campaign_id)
    devices = shown["status_breakdown"]
    ended_or_in_progress = sum(devices[each] for each in ("DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"))
    claimed = min(devices["PENDING"], shown["sent"] - ended_or_in_progress)
    rows = await connection.fetch(_sql["claimed_and_pending"], tenant_id, campaign_id, MOST_COUNTED)
    groups = [_claimed_group(row) for row in rows if row["pending"]]
    beyond = claimed - sum(each.devices for each in groups)
    if beyond > 0 and sum(row["devices"] for row in rows) >= MOST_COUNTED:
        being_sent_to = DeviceFacts(ExecutionStatus.PENDING, attempt=1, due_in=inf)
        groups.append(ClaimedGroup(beyond, being_sent_to))
    return Pending(devices["PENDING"], tuple(groups))


def _claimed_group(row: asyncpg.Record) -> ClaimedGroup:
    first = DeviceFacts(
        ExecutionStatus.PENDING,
        attempt=1,
        sent_attempt=0 if row["unacknowledged"] else 1,
        due_in=row["due_in"] if row["held"] else None,
        refused_for=Refusal(row["refused_for"]) if row["refused_for"] else None,
    )
    return ClaimedGroup(row["devices"], first)


async def device(
    connection: Connection, tenant_id: str, campaign_id: int, device_id: str, *, device_timeout: float
) -> DeviceFacts:
    """What admission goes by of one device; ``device_timeout``: seconds that it has in all, suspended ones included.

    Looks at no more than ``MOST_COUNTED`` executions of each queue.

    Raises:
        NotFound: the campaign has no such device.
    """
    arguments = tenant_id, campaign_id, device_id, UNADDRESSABLE, device_timeout, MOST_COUNTED
    row = await connection.fetchrow(_sql["device"], *arguments)
    if row is None:
        raise NotFound(
            f"campaign {campaign_id} has no device {device_id}", hint="List its devices: GET .../{campaign_id}/devices."
        )
    return DeviceFacts(
        # A host's table may hold words of its own: nothing is ever sent to such a device.
        STATUS.get(row["status"], ExecutionStatus.SKIPPED),
        attempt=row["attempt"],
        sent_attempt=row["sent_attempt"],
        failed_attempt=row["failed_attempt"],
        due_in=row["due_in"],
        refused_for=Refusal(row["refused_for"]) if row["refused_for"] else None,
        addressable=row["addressable"],
        out_of_time=DeviceTime(device_timeout, row["started_ago"], suspended_before=row["suspended_before"]).is_over,
        finished=row["finished"],
        ahead=row["ahead_fresh"] + row["ahead_again"],
        ahead_fresh=row["ahead_fresh"],
        ahead_counted=max(row["ahead_fresh"], row["due_looked_at"]) < MOST_COUNTED,
        error=row["error_message"],
    )


async def device_events(connection: Connection, tenant_id: str, campaign_id: int, device_id: str) -> list[Document]:
    """What happened to one device, oldest first, of the last ``MOST_COUNTED`` events of its campaign."""
    rows = await connection.fetch(_sql["events_of_device"], tenant_id, campaign_id, device_id, MOST_COUNTED)
    return [_event(row) for row in rows]


def _event(row: asyncpg.Record) -> Document:
    return {**with_moments(row), "detail": json.loads(row["detail"])}


async def _require(connection: Connection, tenant_id: str, campaign_id: int) -> None:
    if not await connection.fetchval(_sql["campaign_exists"], tenant_id, campaign_id):
        raise _missing(campaign_id)


def _missing(campaign_id: int) -> NotFound:
    return NotFound(f"no campaign {campaign_id}", hint="List the campaigns to see their ids.")
