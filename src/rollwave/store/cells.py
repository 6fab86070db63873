"""Cells: how many devices of each wave and segment are in which state, for campaigns under a policy document.

A cell changes in the transaction that changes its devices, after the campaign's row is locked, so that no two
transactions wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollwave.domain.execution import Cell
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.facts import SegmentGroup
from rollwave.domain.policy.waves import WaveCounts
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("cells")


async def end(connection: Connection, tenant_id: str, ended: Mapping[CampaignId, EndedInCampaign]) -> None:
    """Move devices that were in flight to succeeded or failed. The campaigns' rows are locked."""
    succeeded: Counter[tuple[CampaignId, int, int]] = Counter()
    failed: Counter[tuple[CampaignId, int, int]] = Counter()
    for campaign_id, of_campaign in ended.items():
        for each in of_campaign.places:
            if each.cell is not None:
                key = campaign_id, *each.cell
                succeeded[key] += each.succeeded
                failed[key] += each.failed
    keys = sorted(succeeded)
    if keys:
        columns = [list(column) for column in zip(*keys, strict=True)]
        numbers = ([of[key] for key in keys] for of in (succeeded, failed))
        await connection.execute(_sql["end"], tenant_id, *columns, *numbers)


class Skipped(NamedTuple):
    """Devices of one cell that are ``SKIPPED`` now.

    Of these, ``waiting``: the cell counted as never sent to; ``in_flight``: it counted so; ``held``: by budgets.
    """

    wave: int
    segment: int
    devices: int
    waiting: int
    in_flight: int
    held: int


async def skip(connection: Connection, tenant_id: str, campaign_id: CampaignId, skipped: Sequence[Skipped]) -> None:
    """Move devices to skipped. The campaign's row is locked."""
    if skipped:
        columns = [list(column) for column in zip(*skipped, strict=True)]
        await connection.execute(_sql["skip"], tenant_id, campaign_id, *columns)


class QueueCounts(NamedTuple):
    """The devices of a campaign. ``counts``: of each wave, by its number. ``groups``: those that wait, by segments."""

    counts: dict[int, WaveCounts]
    groups: tuple[SegmentGroup, ...]


async def queue(connection: Connection, campaign: Campaign, *, zoned: bool) -> QueueCounts:
    """Count the campaign's devices by wave, and those that wait for their first command by group.

    ``zoned``: windows depend on the time zones of devices, so that these make groups of their own.
    """
    statement = _sql["queue_by_zone" if zoned else "queue"]
    rows = await connection.fetch(statement, campaign.tenant_id, campaign.id, campaign.wave)
    return QueueCounts(
        {wave: WaveCounts(*numbers[:6]) for wave, _, _, *numbers in rows if wave is not None},
        tuple(SegmentGroup(zone, held_back, *numbers[6:]) for wave, zone, held_back, *numbers in rows if wave is None),
    )


def named(zones: Sequence[str | None] | None) -> list[str] | None:
    """The time zones that have a name; None: every zone."""
    return None if zones is None else [each for each in zones if each is not None]


def has_none(zones: Sequence[str | None] | None) -> bool:
    """Whether segments without a time zone are meant too."""
    return zones is None or None in zones


async def next_rooms(
    connection: Connection,
    campaign: Campaign,
    *,
    up_to_wave: int,
    zones: Sequence[str | None] | None,
    devices: int,
) -> dict[Cell, int]:
    """The cells to take ``devices`` from, each with the number of its devices in the queue.

    What earlier waves have left over goes first. Within a wave, segments take turns after the last claim's. ``zones``:
    only segments of these time zones; None: of every zone. Quarantined segments are left out.
    """
    rows = await connection.fetch(
        _sql["next_rooms"],
        *(campaign.tenant_id, campaign.id, up_to_wave, campaign.segment_turn),
        *(named(zones), has_none(zones), devices),
    )
    return {Cell(row["wave"], row["segment"]): row["waiting"] for row in rows}


async def counts(connection: Connection, campaign: Campaign) -> dict[int, WaveCounts]:
    """The numbers of each wave's devices by state, by the wave's number."""
    rows = await connection.fetch(_sql["counts"], campaign.tenant_id, campaign.id)
    return {row["wave"]: WaveCounts(*row[1:]) for row in rows}


class Segment(NamedTuple):
    """A segment. ``time_zone``: as their label has it; None: no window asks for it."""

    number: int
    time_zone: str | None
    quarantined: bool


async def segments(connection: Connection, campaign: Campaign) -> list[Segment]:
    """All segments by number."""
    rows = await connection.fetch(_sql["segments"], campaign.tenant_id, campaign.id)
    return [Segment(*row) for row in rows]
