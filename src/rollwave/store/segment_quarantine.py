"""Segments under quarantine: a guardrail stops sending to their devices, until an operator releases them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class Quarantined(NamedTuple):
    """A segment under quarantine, and why. ``guardrail``: the one that tripped; None: an edit moved devices here."""

    segment: int
    reason: str
    guardrail: str | None


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


async def carry(connection: Connection, campaign: Campaign, changes: SegmentChanges) -> list[Quarantined]:
    """Keep devices under quarantine that are in other segments now. Only an operator's release ends a quarantine.

    A new segment that has all labels of one under quarantine is under quarantine too, since the same moment and for the
    same reason. So is a segment that devices under quarantine have entered, if its labels do not contradict those of
    the segment that they have left: with fewer labels, it is wider.
    """
    if not changes.new and not changes.moved:
        return []
    left, entered = [each[0] for each in changes.moved], [each[1] for each in changes.moved]
    rows = await connection.fetch(_sql["carry"], campaign.tenant_id, campaign.id, changes.new, left, entered)
    return sorted(Quarantined(row["number"], row["quarantined_because"], None) for row in rows)


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
