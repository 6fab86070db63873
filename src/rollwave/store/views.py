"""Reads for the API and for *explain*: campaigns with their progress, devices, events. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from rollwave.domain import events as events_of
from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus, Place
from rollwave.domain.ids import UNADDRESSABLE
from rollwave.domain.overview.sentences import sentence
from rollwave.domain.policy.budgets import BudgetOfDevice
from rollwave.domain.policy.facts import DeviceFacts, SegmentOfDevice
from rollwave.domain.policy.waiting import AgainInSegments, DueAgain
from rollwave.domain.retry import DeviceTime
from rollwave.errors import NotFound
from rollwave.store.database import IN_TURN, Connection, Pool, tenant_transaction
from rollwave.store.executions import STATUS
from rollwave.store.moments import Document, with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load
from rollwave.store.shown_waves import flat_waves, known

_sql = load("views")

LOOKED_FOR = frozenset({ExecutionStatus.FAILED, ExecutionStatus.SKIPPED, ExecutionStatus.INSTALLING})
"""States with their own index, in which even a few devices are found quickly (``devices_looked_for``)."""

UNFINISHED = frozenset({ExecutionStatus.PENDING, ExecutionStatus.DOWNLOADING, ExecutionStatus.INSTALLING})
FEW = 5000
"""Maximum number of unfinished devices for which ``devices_unfinished`` reads all of them to make a page."""


MOST_COUNTED = 10_000
"""Maximum number of devices that *waiting* and *explain* count along a queue, and of events that they read."""


@dataclass(frozen=True, slots=True)
class ClaimedGroup:
    """Number of claimed ``PENDING`` devices that gates treat alike; ``first``: the facts of the one due first."""

    devices: int
    first: DeviceFacts


@dataclass(frozen=True, slots=True)
class Pending:
    """The number of a campaign's ``PENDING`` devices, and the claimed ones among them.

    ``claimed``: those that were read, in groups; ``not_looked_at``: the number of the others. ``due``: the numbers of
    devices, of any status, that may be sent to again now.
    """

    devices: int
    claimed: tuple[ClaimedGroup, ...]
    not_looked_at: int
    due: DueAgain


async def campaign(connection: Connection, tenant_id: str, campaign_id: int) -> Document:
    """One campaign with ``firmware_*``, ``waves``, ``stopped_by`` and ``status_breakdown``, which has every status.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    row = await connection.fetchrow(_sql["campaign"], tenant_id, campaign_id)
    if row is None:
        raise _missing(campaign_id)
    counted = json.loads(row["status_breakdown"] or "{}")
    # Rows that other SQL wrote are counted within a minute. Until then a counter may be negative.
    breakdown = {status.value: max(0, counted.get(status, 0)) for status in ExecutionStatus}
    ended = {"succeeded": breakdown["SUCCESS"], "failed": breakdown["FAILED"]}
    shown = {**with_moments(row), **ended}
    parts = {name: json.loads(row[name] or "[]") for name in ("waves", "stopped_by")}
    if shown["policy_revision"] is None:
        parts["waves"] = flat_waves(shown, parts["waves"])
    else:
        parts["waves"] = [each | known(each) for each in parts["waves"]]
    return {**shown, "status_breakdown": breakdown, **parts}


async def campaigns(
    connection: Connection, tenant_id: str, *, status: CampaignStatus | None, limit: int, cursor: int | None = None
) -> Page:
    """A page of campaigns, newest first. ``status`` None: campaigns in every state."""
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
    """A page of a campaign's devices, ordered by id. ``status`` None: devices in every state.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        breakdown = (await campaign(connection, tenant_id, campaign_id))["status_breakdown"]
        total = breakdown[status] if status else sum(breakdown.values())
        statement = _devices_statement(status, breakdown)
        if statement == "devices_unfinished":
            await connection.execute(IN_TURN)
        # If no device is in this state, do not search, which would read the whole campaign.
        arguments = tenant_id, campaign_id, status, cursor, limit + 1
        records = await connection.fetch(_sql[statement], *arguments) if total else []
    return page(records, total, limit=limit, key="device_id")


def _devices_statement(status: ExecutionStatus | None, breakdown: Mapping[str, int]) -> str:
    if status in LOOKED_FOR:
        return "devices_looked_for"
    few_left = sum(breakdown[each] for each in UNFINISHED) <= FEW
    return "devices_unfinished" if status in UNFINISHED and few_left else "devices"


async def events(pool: Pool, tenant_id: str, campaign_id: int, *, after: int = 0, limit: int) -> list[Document]:
    """The events of a campaign after the event ``after``, oldest first.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        await require(connection, tenant_id, campaign_id)
        records = await connection.fetch(_sql["events"], tenant_id, campaign_id, after, limit)
    return [_event(record) for record in records]


async def pending(
    connection: Connection,
    tenant_id: str,
    campaign_id: int,
    *,
    device_timeout: float,
    tokens: int,
    shown: Document | None = None,
    most: int = MOST_COUNTED,
) -> Pending:
    """The number of ``PENDING`` devices by the campaign's counters, and the facts of the claimed ones among them.

    Reads at most ``most`` executions, those that are due first. ``device_timeout``: seconds, with all
    suspensions of the campaign added. ``tokens``: number of commands that the pace allows now. ``shown``: the campaign
    as :func:`campaign` has read it in this transaction; None: it is read here.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    shown = await campaign(connection, tenant_id, campaign_id) if shown is None else shown
    devices = shown["status_breakdown"]
    ended_or_in_progress = sum(devices[each] for each in ("DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"))
    claimed = min(devices["PENDING"], shown["sent"] - ended_or_in_progress)
    arguments = tenant_id, campaign_id, most, UNADDRESSABLE, device_timeout, tokens
    rows = await connection.fetch(_sql["claimed_and_pending"], *arguments)
    groups = tuple(_claimed_group(row) for row in rows if row["pending"])
    all_were = sum(row["devices"] for row in rows) < most
    beyond = 0 if all_were else max(0, claimed - sum(each.devices for each in groups))
    again = [row for row in rows if row["again"]]
    due = DueAgain(
        devices=sum(row["devices"] for row in again),
        pending=sum(row["devices"] for row in again if row["pending"]),
        pending_now=sum(row["devices"] for row in again if row["pending"] and row["goes"]),
        before_pending=min((row["first_turn"] - 1 for row in again if row["pending"]), default=0),
        of_segments=tuple(
            AgainInSegments(row["devices"], row["time_zone"], row["quarantined"], row["placed"])
            for row in again
            if row["pending"]
        ),
    )
    return Pending(devices["PENDING"], groups, beyond, due)


def _claimed_group(row: asyncpg.Record) -> ClaimedGroup:
    first = DeviceFacts(
        ExecutionStatus.PENDING,
        attempt=row["attempt"],
        sent_attempt=row["attempt"] - row["unacknowledged"],
        due_in=row["due_in"] if row["held"] else None,
        refused_for=Refusal(row["refused_for"]) if row["refused_for"] else None,
        addressable=row["addressable"],
    )
    return ClaimedGroup(row["devices"], first)


async def device(
    connection: Connection, tenant_id: str, campaign_id: int, device_id: str, *, device_timeout: float
) -> DeviceFacts:
    """The facts about one device. ``device_timeout``: in seconds, with all suspensions of the campaign added.

    Reads at most ``MOST_COUNTED`` executions of each queue.

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
        # A host's table may contain other status values. Nothing is ever sent to such a device.
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
        ahead_counted=max(row["ahead_fresh"], row["ahead_again"]) < MOST_COUNTED,
        error=row["error_message"],
        segment=_segment(row),
    )


def _segment(row: asyncpg.Record) -> SegmentOfDevice | None:
    place = Place.read(row["segment"], row["position"], None)
    if place is None:
        return None
    budgets = zip(row["budgets"], row["values"], row["in_flight"], strict=True)
    return SegmentOfDevice(
        *(place.segment, place.wave, row["time_zone"], row["quarantined"]),
        budgets=tuple(BudgetOfDevice(*each) for each in budgets),
        held=row["segment"] < 0,
    )


async def device_events(connection: Connection, tenant_id: str, campaign_id: int, device_id: str) -> list[Document]:
    """The events of one device among the last ``MOST_COUNTED`` events of its campaign, oldest first."""
    rows = await connection.fetch(_sql["events_of_device"], tenant_id, campaign_id, device_id, MOST_COUNTED)
    return [_event(row) for row in rows]


async def latest_events(connection: Connection, tenant_id: str, campaign_id: int, *, limit: int) -> list[Document]:
    """The last events of a campaign, newest first."""
    rows = await connection.fetch(_sql["latest_events"], tenant_id, campaign_id, limit)
    return [_event(row) for row in rows]


def _event(row: asyncpg.Record) -> Document:
    read: object = json.loads(row["detail"] or "{}")
    detail = read if isinstance(read, dict) else {}  # other SQL has written it
    text = sentence(events_of.read(row["event"], detail, row["device_id"]))
    return {**with_moments(row), "detail": detail, "text": text}


async def brief(pool: Pool, tenant_id: str, campaign_id: int) -> Document:
    """A campaign in brief, from its own row and its waves: what an action is about, whatever else is spoiled.

    It has ``name``, ``status``, ``cancelled``, ``firmware_version``, ``waves`` (their names) and ``status_breakdown``,
    which is None if the devices are not counted yet.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["brief"], tenant_id, campaign_id)
    if row is None:
        raise _missing(campaign_id)
    counted = {each.value: row[each.value] for each in ExecutionStatus}
    known = None not in counted.values()
    shown = ("name", "status", "cancelled", "firmware_version", "waves")
    breakdown = {name: max(0, number) for name, number in counted.items()} if known else None
    return {**{name: row[name] for name in shown}, "status_breakdown": breakdown}


async def require(connection: Connection, tenant_id: str, campaign_id: int) -> None:
    """Check that the tenant has this campaign.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    if not await connection.fetchval(_sql["campaign_exists"], tenant_id, campaign_id):
        raise _missing(campaign_id)


def _missing(campaign_id: int) -> NotFound:
    return NotFound(f"no campaign {campaign_id}", hint="List the campaigns to see their ids.")
