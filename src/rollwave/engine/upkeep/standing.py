"""Lets the clocks of devices stand while their segment is closed: outside its window, or under quarantine.

Such a device may not be sent to again. Its segment records the times for which it was closed; a device that becomes due
gets them. The clocks of all devices of a campaign that is suspended stand without this
(:func:`rollwave.engine.upkeep.deadlines.note_activity`).
"""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.policy.rules import Policy
from rollwave.engine.upkeep.deadlines import MAX_OVERDUE_PER_LOOK, Noted
from rollwave.store import standing
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.standing import ClosedSegment, Times


async def note(connection: Connection, campaign: Campaign, closed: Sequence[ClosedSegment], noted: Noted) -> None:
    """Record which segments are closed now. Needs the campaign's lock.

    Those that have closed since the last look are closed since then: no device loses time to the interval of looks.
    """
    await standing.note(connection, campaign, closed, seen_ago=noted.seen_ago, suspended=noted.suspended_for)


async def let_stand(
    connection: Connection, campaign: Campaign, policy: Policy, closed: Sequence[ClosedSegment]
) -> bool:
    """Hold devices of closed segments that are due, and give those of segments that have opened their time.

    Devices that were held and wait for another attempt are due at once when their segment opens. Returns whether there
    may be more of them. Needs the campaign's lock.
    """
    limit, progress = MAX_OVERDUE_PER_LOOK, policy.progress_timeout
    if await standing.hold(connection, campaign, closed, progress_timeout=progress, limit=limit) == limit:
        return True
    opened = await standing.opened(connection, campaign)
    made = await standing.make_due(connection, campaign, opened.reopened, progress_timeout=progress, limit=limit)
    if made == limit or not opened.any:
        return made == limit
    times = Times(policy.answer_timeout, progress, policy.device_timeout + campaign.activity.suspended_for)
    return await standing.give_time(connection, campaign, times, limit=limit) == limit
