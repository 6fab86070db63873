"""The times for which segments were closed. Their devices could not be sent to again, and the clocks of these stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rollwave.domain.retry import HELD_SECONDS, MAX_HELD_SECONDS
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("standing")


class ClosedSegment(NamedTuple):
    """The number of a segment that may not be sent to now. ``opens_in``: seconds until it may; None: unknown."""

    number: int
    opens_in: float | None


class Times(NamedTuple):
    """The timeouts of a campaign's devices, in seconds. ``device``: including all suspensions of the campaign."""

    answer: float
    progress: float
    device: float


async def note(
    connection: Connection, campaign: Campaign, closed: Sequence[ClosedSegment], *, seen_ago: float, suspended: float
) -> None:
    """Record that these segments are closed now, and the others are open. Needs the campaign's lock.

    ``seen_ago``: seconds since the last look. ``suspended``: seconds for which the campaign was suspended until now,
    which are no times of its segments; 0: it was not.
    """
    numbers = [each.number for each in closed]
    await connection.execute(_sql["note"], campaign.tenant_id, campaign.id, numbers, seen_ago, suspended)


async def any_was_closed(connection: Connection, campaign: Campaign) -> bool:
    """Whether any segment is closed, or was before."""
    return bool(await connection.fetchval(_sql["any_was_closed"], campaign.tenant_id, campaign.id))


async def reopened(connection: Connection, campaign: Campaign) -> list[int]:
    """The segments that have opened since their devices were made due. Needs the campaign's lock."""
    rows = await connection.fetch(_sql["reopened"], campaign.tenant_id, campaign.id)
    return [row["number"] for row in rows]


async def hold(
    connection: Connection, campaign: Campaign, closed: Sequence[ClosedSegment], *, progress_timeout: float, limit: int
) -> int:
    """Hold up to ``limit`` devices of closed segments that are due (:func:`rollwave.domain.retry.hold`).

    Returns their number. Needs the campaign's lock. Not applied: another transaction has locked the row.
    """
    if not closed:
        return 0
    held: int = await connection.fetchval(
        _sql["hold"],
        *(campaign.tenant_id, campaign.id, [each.number for each in closed], [each.opens_in for each in closed]),
        *(progress_timeout, limit, MAX_HELD_SECONDS, HELD_SECONDS),
    )
    return held


async def make_due(
    connection: Connection, campaign: Campaign, segments: Sequence[int], *, progress_timeout: float, limit: int
) -> int:
    """Make up to ``limit`` devices due that were held in these segments, which are open now.

    Returns their number. Needs the campaign's lock. Not applied: another transaction has locked the row. Then the
    device is due when the hold ends, or when the report says that the transaction applies.
    """
    if not segments:
        return 0
    key = campaign.tenant_id, campaign.id
    made: int = await connection.fetchval(_sql["make_due"], *key, segments, progress_timeout, limit)
    if made < limit:
        await connection.execute(_sql["all_due"], *key, segments)
    return made


async def give_time(connection: Connection, campaign: Campaign, times: Times, *, limit: int) -> int:
    """Give up to ``limit`` devices that are due, and whose segment was closed meanwhile, the time for which it was.

    They have the progress timeout from the opening. Returns their number. Needs the campaign's lock. Not applied:
    another transaction has locked the row. A later look gives the time, and no device is judged before.
    """
    key = campaign.tenant_id, campaign.id
    given: int = await connection.fetchval(_sql["give_time"], *key, times.progress, times.device, times.answer, limit)
    return given
