"""Reads the segments of a campaign under a policy document: what they are, and their devices by state."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import asyncpg

from rollwave.domain.policy.quarantined import QuarantinedSegment
from rollwave.store.campaign_rows import AnyCampaign, Campaign
from rollwave.store.campaigns import missing
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document, moment
from rollwave.store.page import Page
from rollwave.store.queries import load

_sql = load("segments")

MAX_KEPT = 20_000
"""Maximum number of segments that a process keeps, so that a claim need not read them again."""


class Segment(NamedTuple):
    """What its devices have in common. ``time_zone``: as their label has it; None: no window asks for it."""

    labels: Mapping[str, object]
    time_zone: str | None


_kept: dict[tuple[str, int, str | None, int], Segment] = {}


async def described(connection: Connection, campaign: Campaign, numbers: Collection[int]) -> dict[int, Segment]:
    """These segments of a campaign, by number. Left out: those that it does not have.

    A segment stays the same while all devices are placed by one revision of the policy, so each is read once for it.
    The campaign's row need not be locked: one that changes meanwhile is read, and not kept.
    """
    key = campaign.tenant_id, campaign.id, campaign.policy_version
    settled = not (campaign.being_targeted or campaign.must_be_placed)
    found = {number: kept for number in numbers if settled and (kept := _kept.get((*key, number))) is not None}
    if len(found) < len(numbers):
        missing = [number for number in numbers if number not in found]
        rows = await _read(connection, campaign, missing, campaign.policy_revision)
        new = {row["number"]: _segment(row) for row in rows}
        found |= new
        if settled and all(row["is_placed"] for row in rows):
            _kept.update({(*key, number): each for number, each in new.items()})
        while len(_kept) > MAX_KEPT:
            del _kept[next(iter(_kept))]  # the oldest one; it is read again if it is needed
    return found


async def read(connection: Connection, campaign: AnyCampaign, numbers: Collection[int]) -> dict[int, Segment]:
    """As :func:`described`, also of segments that this transaction has made or changed."""
    return {row["number"]: _segment(row) for row in await _read(connection, campaign, numbers, None)}


async def _read(
    connection: Connection, campaign: AnyCampaign, numbers: Collection[int], revision: int | None
) -> Sequence[asyncpg.Record]:
    rows: Sequence[asyncpg.Record] = await connection.fetch(
        _sql["described"], campaign.tenant_id, campaign.id, list(numbers), revision
    )
    return rows


def _segment(row: asyncpg.Record) -> Segment:
    return Segment(json.loads(row["labels"]), row["time_zone"])


async def page(pool: Pool, tenant_id: str, campaign_id: int, *, limit: int, after: int = 0) -> Page:
    """A page of a campaign's segments after the number ``after``, ordered by number.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        total = await connection.fetchval(_sql["count"], tenant_id, campaign_id)
        if total is None:
            raise missing(campaign_id)
        rows = await connection.fetch(_sql["page"], tenant_id, campaign_id, after, limit + 1)
    found: list[Document] = [
        {
            "number": row["number"],
            "labels": json.loads(row["labels"]),
            **{name: row[name] for name in ("waiting", "in_flight", "succeeded", "failed")},
            "quarantined": None
            if row["quarantined_at"] is None
            else {"since": moment(row["quarantined_at"]), "reason": row["quarantined_because"]},
        }
        for row in rows
    ]
    last = found[limit - 1]["number"] if len(found) > limit else None
    return Page(found[:limit], total, None if last is None else last)


async def quarantined(
    connection: Connection, tenant_id: str, campaign_id: int, *, number: int | None = None, limit: int
) -> list[QuarantinedSegment]:
    """The segments of a campaign under quarantine, by number. ``number``: only this one; None: all."""
    rows = await connection.fetch(_sql["quarantined"], tenant_id, campaign_id, number, limit)
    return [
        QuarantinedSegment(row["number"], json.loads(row["labels"]), row["quarantined_because"] or "no reason given")
        for row in rows
    ]
