"""The series of a campaign's counters, its plans, and the events that a chart marks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from rollwave.domain.overview.plan import Plan, PlanPoint
from rollwave.domain.overview.timeline import Point
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.events import Recorded, recorded
from rollwave.store.moments import moment
from rollwave.store.queries import load

_sql = load("timeline")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

FLAT_REVISION = 0
"""The revision under which the plan of flat columns is stored."""

MAX_MARKS = 100
"""Maximum number of events that are marked."""


class Length(NamedTuple):
    """The number of points that a series had before, and the seconds since its first one."""

    points: int
    elapsed: float


async def write(connection: Connection, campaign: Campaign, *, apart: float, looks_apart: float) -> Length:
    """Write the campaign's counters as a point, if they have changed. Needs the campaign's lock.

    Args:
        apart: least seconds since the last point; 0: write it in any case.
        looks_apart: most seconds between two looks. Counters of an older point held until so long ago.
    """
    [row] = await connection.fetch(_sql["write"], campaign.tenant_id, campaign.id, apart, looks_apart)
    first = row["first_at"]
    return Length(row["points"], 0.0 if first is None else campaign.read_at.timestamp() - first)


async def points(connection: Connection, tenant_id: str, campaign_id: int) -> list[Point]:
    """The series, oldest first."""
    return [_point(row) for row in await connection.fetch(_sql["points"], tenant_id, campaign_id)]


async def lately(
    connection: Connection, tenant_id: str, campaign_ids: Sequence[int], *, seconds: float, parts: int
) -> dict[int, list[Point]]:
    """The last ``seconds`` of the series of campaigns by id, thinned to a point in each of ``parts`` equal parts."""
    found: dict[int, list[Point]] = {each: [] for each in campaign_ids}
    if found:
        rows = await connection.fetch(_sql["lately"], tenant_id, list(campaign_ids), seconds, float(parts))
        for row in rows:
            found[row["campaign_id"]].append(_point(row))
    return found


async def remove(connection: Connection, campaign: Campaign, times: Collection[datetime]) -> None:
    """Remove the points at these times. Needs the campaign's lock."""
    microseconds = [(each - _EPOCH) // timedelta(microseconds=1) for each in times]
    await connection.execute(_sql["remove"], campaign.tenant_id, campaign.id, microseconds)


@dataclass(frozen=True, slots=True)
class Now:
    """A campaign's counters now. ``point``: None if they are not counted yet."""

    at: datetime
    point: Point | None
    started_at: datetime | None
    completed_at: datetime | None


async def counters(connection: Connection, campaign: Campaign) -> Now:
    """The counters in the campaign's row, which this transaction has read."""
    [row] = await connection.fetch(_sql["counters"], campaign.tenant_id, campaign.id)
    at = campaign.read_at
    started, completed = row["started_at"], row["completed_at"]
    states = ("pending", "downloading", "installing", "succeeded", "failed", "skipped")
    return Now(
        at,
        None if any(row[each] is None for each in states) else Point(at, *(row[each] for each in states)),
        None if started is None else moment(started),
        None if completed is None else moment(completed),
    )


def _point(row: asyncpg.Record) -> Point:
    states = row["pending"], row["downloading"], row["installing"], row["succeeded"], row["failed"], row["skipped"]
    return Point(moment(row["at"]), *states)


async def plan_made(connection: Connection, campaign: Campaign) -> bool:
    """Whether the plan of the revision in force is stored."""
    made: bool = await connection.fetchval(_sql["plan_made"], campaign.tenant_id, campaign.id, revision_of(campaign))
    return made


async def write_plan(connection: Connection, campaign: Campaign, plan: Plan | None) -> None:
    """Store the plan of the revision in force. None: it has none, which is stored too. Not applied: it is stored."""
    drawn = () if plan is None else plan.points
    await connection.execute(
        _sql["write_plan"],
        *(campaign.tenant_id, campaign.id, revision_of(campaign), campaign.read_at.timestamp()),
        None if plan is None or plan.ends_at is None else plan.ends_at.timestamp(),
        [each.at.timestamp() for each in drawn],
        [each.devices for each in drawn],
    )


def revision_of(campaign: Campaign) -> int:
    """The revision under which the campaign's plan is stored."""
    return campaign.policy_revision or FLAT_REVISION


async def plans(connection: Connection, tenant_id: str, campaign_id: int) -> list[Plan]:
    """All plans of a campaign, in the order in which they were made."""
    return [_plan(row) for row in await connection.fetch(_sql["plans"], tenant_id, campaign_id)]


async def plan(connection: Connection, tenant_id: str, campaign_id: int) -> Plan | None:
    """The plan of the revision in force. None: there is none."""
    row = await connection.fetchrow(_sql["plan"], tenant_id, campaign_id)
    return None if row is None or not row["times"] else _plan(row)


def _plan(row: asyncpg.Record) -> Plan:
    pairs = zip(row["times"], row["devices"], strict=True)
    ends_at = None if row["ends_at"] is None else moment(row["ends_at"])
    return Plan(tuple(PlanPoint(moment(at), devices) for at, devices in pairs), ends_at)


async def marks(connection: Connection, tenant_id: str, campaign_id: int, words: Sequence[str]) -> list[Recorded]:
    """The last events of the campaign itself that have these names, oldest first."""
    rows = await connection.fetch(_sql["marks"], tenant_id, campaign_id, words, MAX_MARKS)
    return [recorded(row, campaign_id) for row in rows]
