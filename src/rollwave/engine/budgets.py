"""Chooses the devices of a claim by the budgets of the policy document, and counts those in flight.

For each value of a budget with room, and each segment, at least as many of the devices that it has held have returned
to the queue as there is room for. So every device that may go is in the queue. All functions need the campaign's lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from rollwave.domain.campaign import FINAL
from rollwave.domain.execution import Cell, Place
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.budgets import Choice, Key, Return, caps_of, freed, keys_of
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.ended_devices import EndedInCampaign
from rollwave.domain.policy.placing import placing_of
from rollwave.store import budgets as store
from rollwave.store import campaigns, placing_progress, retries
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import IN_TURN, Connection

FIRST = (0, "", 0)
"""The budget, value and segment before all others."""

MAX_ROUNDS = 4
"""Maximum number of batches of candidates that one claim looks at, so that it does not lock the campaign for long."""


async def fill_queue(connection: Connection, campaign: Campaign, document: PolicyDocument, *, limit: int) -> bool:
    """Return the first devices of each value and segment to the queue, after all were placed outside it.

    Reads ``limit`` held devices. Returns whether there are no more.
    """
    if not placing_of(document).holding:
        return True
    await connection.execute(IN_TURN)
    caps = caps_of(document)
    held = await store.next_held(connection, campaign, campaign.filled or FIRST, limit=limit)
    returns = [Return(each.key, each.segment, caps[each.key.budget - 1]) for each in held]
    if returns:
        await store.return_to_queue(connection, campaign, returns)
    if sum(each.devices for each in held) < limit:
        return True
    (number, value), segment, _ = held[-1]
    await placing_progress.filled(connection, campaign, number, value, segment)
    return False


async def return_owed(connection: Connection, campaign: Campaign) -> None:
    """Return devices to the queue that were locked when their turn came."""
    if owed := await store.take_owed(connection, campaign):
        await store.return_to_queue(connection, campaign, owed)


async def choose(
    connection: Connection,
    campaign: Campaign,
    document: PolicyDocument,
    rooms: Callable[[], Awaitable[Mapping[Cell, int]]],
    *,
    devices: int,
    look: int,
) -> tuple[Choice, bool]:
    """Choose up to ``devices`` devices for their first command, and hold those before them that have no room.

    ``rooms``: reads the open cells with the number of devices in the queue of each. ``look``: number of candidates
    in each round. Returns the choice, and whether the next claim may find more.
    """
    choice, changed = Choice(caps_of(document), devices), False
    for _ in range(MAX_ROUNDS):
        ids = {each.device_id for each in choice.accepted}
        found = await store.candidates(connection, campaign, await rooms(), limit=look, without=ids)
        blocked, returns = choice.look_at(found)
        held = await store.hold(connection, campaign, blocked) if blocked else 0
        returned = await store.return_to_queue(connection, campaign, returns) if returns else 0
        changed = changed or bool(held or returned)
        if choice.full or not (held or returned):
            break
    return choice, changed


async def behind(
    connection: Connection, campaign: Campaign, choice: Choice, rooms: Mapping[Cell, int], *, look: int
) -> dict[str, int]:
    """The next ``look`` devices of the queue that those before them leave no place, each with the number of the budget.

    ``choice``: an empty one, as the next claim makes it. Nothing is locked or changed.
    """
    held, _ = choice.look_at(await store.candidates(connection, campaign, rooms, limit=look, without=()))
    return {each.candidate.device_id: each.key.budget for each in held}


async def sent(connection: Connection, campaign: Campaign, choice: Choice, places: Iterable[Place]) -> None:
    """Count the devices of a choice that the claim has taken. For those that it has not, others return to the queue."""
    moved = Counter(key for place in places for key in keys_of(place.budget_values))
    await store.add(connection, campaign.tenant_id, campaign.id, moved)
    if left := choice.taken - moved:
        await store.return_to_queue(connection, campaign, [Return(key, None, number) for key, number in left.items()])


async def ended(connection: Connection, tenant_id: str, devices: Mapping[CampaignId, EndedInCampaign]) -> None:
    """Count devices that were in flight and are terminal. The next devices of the same values return to the queue."""
    for campaign_id, of_campaign in sorted(devices.items()):
        if of_campaign.budget_values:
            moved = Counter(key for values in of_campaign.budget_values for key in keys_of(values))
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            await change(connection, campaign, {key: -number for key, number in moved.items()})


async def retried(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, devices: Iterable[retries.Retried]
) -> None:
    """Count devices that an operator has put in flight again. A budget limits first commands only."""
    if keys := Counter(key for each in devices for key in keys_of(each.budget_values)):
        await change(connection, await campaigns.get(connection, tenant_id, campaign_id), keys)


async def change(connection: Connection, campaign: Campaign, moved: Mapping[Key, int]) -> None:
    """Change the devices in flight of values, and return devices to the queue for the places that become free.

    While devices are being placed anew, nothing is counted: the last batch counts the rows. A campaign that has ended
    sends nothing more.
    """
    if campaign.document is None or campaign.being_targeted or campaign.must_be_placed or campaign.status in FINAL:
        return
    caps = caps_of(campaign.document)
    moved = {key: number for key, number in moved.items() if key.budget <= len(caps)}
    returns = [
        Return(key, None, free)
        for key, in_flight, holds in await store.add(connection, campaign.tenant_id, campaign.id, moved)
        if holds and (free := freed(caps[key.budget - 1], before=in_flight - moved[key], after=in_flight)) > 0
    ]
    if returns:
        await store.return_to_queue(connection, campaign, returns)


async def repair(connection: Connection, campaign: Campaign, missed: Mapping[Key, int], *, lost: bool) -> None:
    """Add what a comparison found. ``lost``: other SQL has changed devices that budgets hold."""
    await change(connection, campaign, missed)
    if lost:
        await store.return_lost(connection, campaign)


def rooms_of(choice: Choice) -> dict[Cell, int]:
    """The cells of the accepted devices, in the order of the choice, each with their number."""
    return dict(Counter(each.cell for each in choice.accepted))


def ids_of(choice: Choice) -> Sequence[str]:
    """The ids of the accepted devices."""
    return [each.device_id for each in choice.accepted]
