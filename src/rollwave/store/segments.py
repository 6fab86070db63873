"""Reads the segments of a campaign under a policy document, with their devices by state."""

from __future__ import annotations

import json

from rollwave.domain.policy.quarantined import QuarantinedSegment
from rollwave.store.campaigns import missing
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document, moment
from rollwave.store.page import Page
from rollwave.store.queries import load

_sql = load("segments")


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
