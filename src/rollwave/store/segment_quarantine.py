"""Segments under quarantine: a guardrail stops sending to their devices, until an operator releases them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.guardrails import labels_text
from rollwave.store.queries import load

_sql = load("segment_quarantine")


async def quarantine(
    connection: Connection, campaign: Campaign, labels: Mapping[str, object], reason: str
) -> list[int]:
    """Quarantine the segments with these labels. Returns their numbers, without those in quarantine already."""
    rows = await connection.fetch(_sql["quarantine"], campaign.tenant_id, campaign.id, labels_text(labels), reason)
    return sorted(row["number"] for row in rows)


class Quarantined(NamedTuple):
    """A segment that a guardrail has put under quarantine, and why."""

    segment: int
    reason: str
    guardrail: str


async def quarantine_new(connection: Connection, campaign: Campaign, names: Sequence[str]) -> list[Quarantined]:
    """Quarantine segments without quarantine whose devices one of these guardrails has tripped for."""
    rows = await connection.fetch(_sql["quarantine_new"], campaign.tenant_id, campaign.id, names)
    return sorted(Quarantined(*row) for row in rows)


async def release(connection: Connection, campaign: Campaign, segment: int) -> bool:
    """Release a segment. False: it is not in quarantine."""
    return await connection.fetchval(_sql["release"], campaign.tenant_id, campaign.id, segment) is not None


async def exists(connection: Connection, campaign: Campaign, segment: int) -> bool:
    """Whether the campaign has a segment of this number."""
    return bool(await connection.fetchval(_sql["exists"], campaign.tenant_id, campaign.id, segment))
