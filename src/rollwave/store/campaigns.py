"""Campaigns and their waves: reading, locking, changing the status."""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.campaign import UNSEEN_SECONDS, Action, CampaignRef, CampaignStatus, Change, after
from rollwave.domain.events import MOVES
from rollwave.domain.policy.rules import Wave
from rollwave.errors import Conflict, NotFound
from rollwave.store import campaign_rows, events, policies
from rollwave.store.campaign_rows import Campaign, CampaignCounters
from rollwave.store.database import Connection, Pool, system_transaction
from rollwave.store.listeners import TAKEOVER_SECONDS
from rollwave.store.queries import load

_sql = load("campaigns")


async def due(pool: Pool) -> list[CampaignRef]:
    """The campaigns of all tenants that need the engine, or may need it."""
    async with system_transaction(pool) as connection:
        rows = await connection.fetch(_sql["due"])
    return [CampaignRef(row["tenant_id"], row["campaign_id"], campaign_rows.status(row["status"])) for row in rows]


async def get(connection: Connection, tenant_id: str, campaign_id: int) -> Campaign:
    """Read one campaign.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    row = await connection.fetchrow(_sql["get"], tenant_id, campaign_id, TAKEOVER_SECONDS)
    if row is None:
        raise missing(campaign_id)
    return campaign_rows.campaign(row, await policies.in_force(connection, row))


def missing(campaign_id: int) -> NotFound:
    """The error for a campaign that the tenant does not have."""
    return NotFound(f"no campaign {campaign_id}", hint="List the campaigns to see their ids.")


async def lock(connection: Connection, tenant_id: str, campaign_id: int) -> Campaign:
    """Lock one campaign's row until the transaction ends, and read it.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    await connection.execute(_sql["lock"], tenant_id, campaign_id)
    return await get(connection, tenant_id, campaign_id)  # a new statement sees the locked row


async def move(
    connection: Connection,
    campaign: Campaign | CampaignCounters,
    action: Action,
    *,
    tenant_id: str,
    actor: str,
    reason: str | None = None,
    cut: bool = True,
) -> CampaignStatus:
    """Change a campaign's status by the transition table, and write it to history. The same status again: no change.

    The write is guarded by the status that ``campaign`` had when it was read. ``cut``: shorten the reason in the
    campaign's row to the width of a host's column; history has the whole text.

    Raises:
        Conflict: the table does not allow the change, or another transaction changed the campaign first.
    """
    campaign_id = campaign.id if isinstance(campaign, Campaign) else campaign.campaign_id
    to = after(campaign.status, action)
    if to is None:
        raise Conflict(
            f"Cannot {action.verb} campaign {campaign_id}: it is {campaign.status}.",
            hint="COMPLETED and ABORTED are final; create a new campaign to go on.",
        )
    if to is campaign.status:
        return to
    moved = await connection.fetchval(
        _sql["move"], tenant_id, campaign_id, campaign.status, to, reason, UNSEEN_SECONDS, cut
    )
    if moved is None:
        raise Conflict(f"campaign {campaign_id} changed meanwhile", hint="Look at it again, then repeat.")
    await events.append(connection, tenant_id, campaign_id, MOVES[to](campaign.status, reason), actor=actor)
    return to


async def wake(connection: Connection, tenant_id: str) -> None:
    """Let workers look at every campaign of the tenant when this transaction has committed.

    For changes after which devices may be sent to, while the status of their campaign stays the same.
    """
    await connection.execute(_sql["wake"], tenant_id)


async def mark_wound_down(connection: Connection, campaign: Campaign) -> None:
    """Record that an ended campaign no longer needs the engine. Not applied: another worker did so first."""
    await connection.execute(_sql["mark_wound_down"], campaign.tenant_id, campaign.id)


async def note_activity(
    connection: Connection, campaign: Campaign, change: Change, *, longest: float, judge_in: float = 0.0
) -> None:
    """Record a change of activity. Needs the campaign's lock.

    ``longest``: seconds of the longest deadline. ``judge_in``: seconds after a suspension in which no deadline is
    judged.
    """
    key = campaign.tenant_id, campaign.id
    match change:
        case Change.SUSPEND:
            await connection.execute(_sql[change.value], *key, UNSEEN_SECONDS)
        case Change.ACTIVATE:
            await connection.execute(_sql[change.value], *key, judge_in)
        case Change.NOTE:
            await connection.execute(_sql[change.value], *key, campaign.activity.extension(longest) == 0)


async def give_time(connection: Connection, campaign: Campaign, seconds: float) -> None:
    """Let no deadline be judged for so many seconds: devices may be sent to again that could not before.

    Needs the campaign's lock.
    """
    await connection.execute(_sql["give_time"], campaign.tenant_id, campaign.id, seconds)


async def set_reason(connection: Connection, campaign: Campaign, reason: str) -> None:
    """Record another reason for the campaign's status. Needs the campaign's lock."""
    await connection.execute(_sql["set_reason"], campaign.tenant_id, campaign.id, reason)


async def set_stopped_by(connection: Connection, campaign: Campaign, labels: Sequence[str]) -> None:
    """Record the labels of the brakes that stop the campaign. Needs the campaign's lock."""
    await connection.execute(_sql["set_stopped_by"], campaign.tenant_id, campaign.id, labels)


async def insert_waves(connection: Connection, campaign: Campaign, waves: Sequence[Wave]) -> None:
    """Insert the planned waves. Existing waves stay unchanged."""
    numbers = [wave.number for wave in waves]
    shares = [wave.up_to for wave in waves]
    await connection.execute(_sql["insert_waves"], campaign.tenant_id, campaign.id, numbers, shares)


async def pass_gate(connection: Connection, campaign: Campaign, number: int) -> None:
    """Set the times at which wave ``number`` has passed and the next one opens."""
    await connection.execute(_sql["pass_gate"], campaign.tenant_id, campaign.id, number)


async def open_wave(connection: Connection, campaign: Campaign, number: int) -> bool:
    """Make ``number`` the present wave. False: another worker did so first."""
    return await connection.fetchval(_sql["open_wave"], campaign.tenant_id, campaign.id, number) is not None
