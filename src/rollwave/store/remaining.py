"""What a campaign has left to do, each answer from the head of one index."""

from __future__ import annotations

from dataclasses import dataclass, field

from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("remaining")


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a campaign has left: devices ``waiting`` for their first command, ``open`` ones, ``any`` at all.

    ``due_in`` is the seconds until the first lease, deadline or delay of an open one ends; None: there is none.
    """

    waiting: bool
    open: bool
    any: bool
    due_in: float | None = field(default=None, compare=False)

    @property
    def finished(self) -> bool:
        """Every device is terminal. A campaign without devices is not finished: they may be about to come."""
        return self.any and not self.waiting and not self.open


async def outlook(connection: Connection, campaign: Campaign) -> Outlook:
    """What the campaign has left to do."""
    row = await connection.fetchrow(_sql["outlook"], campaign.tenant_id, campaign.id)
    assert row is not None  # a SELECT without FROM has one row
    due_in = row["due_in"]
    return Outlook(waiting=row["waiting"], open=due_in is not None, any=row["any"], due_in=due_in)


async def next_due(connection: Connection, campaign: Campaign) -> float | None:
    """Seconds until the first lease, deadline or delay of the campaign ends, negative once it has; None: none runs."""
    seconds: float | None = await connection.fetchval(_sql["next_due"], campaign.tenant_id, campaign.id)
    return seconds


async def in_flight(connection: Connection, campaign: Campaign, *, up_to: int) -> int:
    """Devices sent to or being sent to and not terminal, counted no further than ``up_to``."""
    flying: int = await connection.fetchval(_sql["in_flight"], campaign.tenant_id, campaign.id, up_to)
    return flying


async def any_taken(connection: Connection, tenant_id: str, campaign_id: int) -> bool:
    """Whether the broker has ever taken the campaign's command for one of its devices."""
    return bool(await connection.fetchval(_sql["any_taken"], tenant_id, campaign_id))


async def count_pending(connection: Connection, tenant_id: str, campaign_id: int) -> int:
    """Devices that are PENDING; of a campaign not counted yet, those never sent to, counted up to ten thousand."""
    pending: int = await connection.fetchval(_sql["count_pending"], tenant_id, campaign_id)
    return pending
