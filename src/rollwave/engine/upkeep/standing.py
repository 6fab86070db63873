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
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.standing import ClosedSegment, Times


async def let_stand(
    connection: Connection, campaign: Campaign, policy: Policy, closed: Sequence[ClosedSegment], noted: Noted
) -> bool:
    """Record which segments are closed now, hold their devices that are due, and give others the time that they lost.

    A segment that has closed since the last look is closed since then: no device loses the time between two looks.
    Devices that were held and wait for another attempt are due at once when their segment opens. Returns whether there
    may be more of them. Needs the campaign's lock.
    """
    limit, progress = MAX_OVERDUE_PER_LOOK, policy.progress_timeout
    if not closed and not await standing.any_was_closed(connection, campaign):
        return False
    await standing.note(connection, campaign, closed, seen_ago=noted.seen_ago, suspended=noted.suspended_for)
    if await standing.hold(connection, campaign, closed, progress_timeout=progress, limit=limit) == limit:
        return True
    reopened = await standing.reopened(connection, campaign)
    if await standing.make_due(connection, campaign, reopened, progress_timeout=progress, limit=limit) == limit:
        return True
    times = Times(policy.answer_timeout, progress, policy.device_timeout + campaign.activity.suspended_for)
    return await standing.give_time(connection, campaign, times, limit=limit) == limit
