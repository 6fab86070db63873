"""Budgets of a policy document: the devices in flight for each value of a label, and those that wait for one to end.

A device that a budget holds is not in the queue. Its row has a negative segment, and ``ota_campaign_budget_held`` has
it in the order in which devices return. All functions but :func:`compare` need the campaign's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rollwave.domain.execution import Cell
from rollwave.domain.ids import UNADDRESSABLE, CampaignId
from rollwave.domain.policy.budgets import Candidate, Held, Key, Return
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("budgets")


async def candidates(
    connection: Connection, campaign: Campaign, rooms: Mapping[Cell, int], *, limit: int, without: Collection[str]
) -> list[Candidate]:
    """Up to ``limit`` devices at the head of the queue, from these cells, each with its room. They are not locked.

    Left out: ``without``.
    """
    rows = await connection.fetch(
        _sql["candidates"],
        *(campaign.tenant_id, campaign.id, [each.segment for each in rooms], list(rooms.values())),
        *([each.wave for each in rooms], limit, list(without), UNADDRESSABLE),
    )
    return [
        Candidate(
            *(row["device_id"], Cell(row["wave"], row["segment"]), row["place"]),
            tuple(Key(*each) for each in zip(row["budgets"], row["values"], strict=True)),
            tuple(row["in_flight"]),
            row["addressable"],
        )
        for row in rows
    ]


async def hold(connection: Connection, campaign: Campaign, held: Sequence[Held]) -> int:
    """Take devices out of the queue. Returns their number. Not applied: another transaction has locked the row."""
    columns = (
        [each.candidate.place for each in held],
        [each.key.budget for each in held],
        [each.key.value for each in held],
        [each.candidate.device_id for each in held],
    )
    number: int = await connection.fetchval(_sql["hold"], campaign.tenant_id, campaign.id, *columns)
    return number


async def return_to_queue(connection: Connection, campaign: Campaign, returns: Sequence[Return]) -> int:
    """Return the devices that are the next ones for these values to the queue. Returns their number.

    A device that another transaction has locked returns before the next claim (:func:`take_owed`).
    """
    columns = (
        [each.key.budget for each in returns],
        [each.key.value for each in returns],
        [each.segment for each in returns],
        [each.devices for each in returns],
    )
    number: int = await connection.fetchval(_sql["return_to_queue"], campaign.tenant_id, campaign.id, *columns)
    return number


async def take_owed(connection: Connection, campaign: Campaign) -> list[Return]:
    """The devices that have yet to return to the queue, since they were locked. The caller returns them now."""
    rows = await connection.fetch(_sql["take_owed"], campaign.tenant_id, campaign.id)
    return [Return(Key(row["budget"], row["value"]), None, row["owed"]) for row in rows]


class InFlight(NamedTuple):
    """The devices in flight for a value. ``holds``: it may hold devices."""

    key: Key
    in_flight: int
    holds: bool


async def add(
    connection: Connection, tenant_id: str, campaign_id: CampaignId, moved: Mapping[Key, int]
) -> list[InFlight]:
    """Add to the devices in flight of each value; negative numbers: they have ended. Returns the numbers after that."""
    keys = sorted(key for key, number in moved.items() if number)
    if not keys:
        return []
    columns = [each.budget for each in keys], [each.value for each in keys], [moved[each] for each in keys]
    rows = await connection.fetch(_sql["add"], tenant_id, campaign_id, *columns)
    return [InFlight(Key(row["budget"], row["value"]), row["in_flight"], row["holds"]) for row in rows]


class HeldDevices(NamedTuple):
    """A number of devices of one segment that one value holds."""

    key: Key
    segment: int
    devices: int


async def next_held(
    connection: Connection, campaign: Campaign, after: tuple[int, str, int], *, limit: int
) -> list[HeldDevices]:
    """The next ``limit`` devices that budgets hold, by value and segment, after the budget, value and segment."""
    rows = await connection.fetch(_sql["next_held"], campaign.tenant_id, campaign.id, *after, limit)
    return [HeldDevices(Key(budget, value), segment, devices) for budget, value, segment, devices in rows]


async def forget_held(connection: Connection, campaign: Campaign, *, limit: int) -> bool:
    """Forget up to ``limit`` held devices, since all devices are placed anew. Returns whether none is left."""
    deleted = await connection.execute(_sql["forget_held"], campaign.tenant_id, campaign.id, limit)
    return int(deleted.rpartition(" ")[2]) < limit


async def begin(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> None:
    """Count the devices in flight from their rows: all devices are placed."""
    await connection.execute(_sql["begin"], tenant_id, campaign_id)


async def compare(connection: Connection, tenant_id: str, campaign_id: int) -> dict[Key, int]:
    """The numbers to add to the devices in flight of values, so that they agree with the rows."""
    rows = await connection.fetch(_sql["compare"], tenant_id, campaign_id)
    return {Key(row["budget"], row["value"]): row["missed"] for row in rows}


async def return_lost(connection: Connection, campaign: Campaign) -> None:
    """Return devices to the queue that other SQL has changed, so that no budget holds them."""
    await connection.execute(_sql["return_lost"], campaign.tenant_id, campaign.id)
