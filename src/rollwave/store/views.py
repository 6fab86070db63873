"""What people and programs look at: campaigns with their progress, devices, history. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import NotFound
from rollwave.store.database import IN_TURN, Connection, Pool, tenant_transaction
from rollwave.store.moments import with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load

_sql = load("views")

LOOKED_FOR = frozenset({ExecutionStatus.FAILED, ExecutionStatus.SKIPPED, ExecutionStatus.INSTALLING})
"""States of which devices are found at once, however few they are (``devices_looked_for``)."""

UNFINISHED = frozenset({ExecutionStatus.PENDING, ExecutionStatus.DOWNLOADING, ExecutionStatus.INSTALLING})
FEW = 5000
"""Unfinished devices of a campaign that are read for a page of some of them (``devices_unfinished``), at most."""


async def campaign(pool: Pool, tenant_id: str, campaign_id: int) -> dict[str, Any]:
    """One campaign with ``firmware_*``, ``waves`` and ``status_breakdown`` (every status, 0 included).

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        return await _campaign(connection, tenant_id, campaign_id)


async def _campaign(connection: Connection, tenant_id: str, campaign_id: int) -> dict[str, Any]:
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


async def events(pool: Pool, tenant_id: str, campaign_id: int, *, after: int = 0, limit: int) -> list[dict[str, Any]]:
    """What happened to a campaign after the event ``after``, oldest first.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        await _require(connection, tenant_id, campaign_id)
        records = await connection.fetch(_sql["events"], tenant_id, campaign_id, after, limit)
    return [{**with_moments(record), "detail": json.loads(record["detail"])} for record in records]


async def _require(connection: Connection, tenant_id: str, campaign_id: int) -> None:
    if not await connection.fetchval(_sql["campaign_exists"], tenant_id, campaign_id):
        raise _missing(campaign_id)


def _missing(campaign_id: int) -> NotFound:
    return NotFound(f"no campaign {campaign_id}", hint="List the campaigns to see their ids.")
