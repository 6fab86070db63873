"""Segments under quarantine: a guardrail stops sending to their devices, until an operator releases them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollwave.domain.policy.quarantined import QuarantinedSegment
from rollwave.store.campaign_rows import Campaign
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


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """What placing devices did to segments. ``new``: the numbers of new ones.

    ``moved``: pairs of a segment under quarantine that devices have left, and the segment that they have entered.
    """

    new: Sequence[int] = ()
    moved: Sequence[tuple[int, int]] = ()

    @classmethod
    def read(cls, new: Sequence[int], moved: str | None) -> SegmentChanges:
        """From the columns ``new_segments`` and ``from_quarantine`` of a statement of ``placing.sql``."""
        return cls(new, [(left, entered) for left, entered in json.loads(moved or "[]")])


async def under_quarantine(connection: Connection, campaign: Campaign) -> list[QuarantinedSegment]:
    """The segments under quarantine: first those that have been so for the longest time."""
    rows = await connection.fetch(_sql["under_quarantine"], campaign.tenant_id, campaign.id)
    return [
        QuarantinedSegment(row["number"], json.loads(row["labels"]), row["quarantined_because"] or "") for row in rows
    ]


async def put(
    connection: Connection, campaign: Campaign, segments: Sequence[tuple[int, int | None, str]]
) -> list[tuple[int, str]]:
    """Put segments under quarantine. Returns their numbers and reasons, without those in quarantine already.

    ``segments``: the number of each, another one since whose quarantine it is in quarantine (None: since now), and why.
    """
    columns = [[each[place] for each in segments] for place in range(3)]
    rows = await connection.fetch(_sql["put"], campaign.tenant_id, campaign.id, *columns)
    return sorted((row["number"], row["quarantined_because"]) for row in rows)


async def release(connection: Connection, campaign: Campaign, segment: int) -> bool:
    """Release a segment. False: it is not in quarantine."""
    return await connection.fetchval(_sql["release"], campaign.tenant_id, campaign.id, segment) is not None


async def exists(connection: Connection, campaign: Campaign, segment: int) -> bool:
    """Whether the campaign has a segment of this number."""
    return bool(await connection.fetchval(_sql["exists"], campaign.tenant_id, campaign.id, segment))
