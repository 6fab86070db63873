"""How far the devices of a campaign are placed by its policy document."""

from __future__ import annotations

import json
from typing import NamedTuple

from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.placing import Survey
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.placing import Batch, forget_ranks
from rollwave.store.queries import load

_sql = load("placing_progress")


async def note_inserted(connection: Connection, campaign: Campaign, batch: Batch) -> None:
    """Record that a batch of :func:`place_inserted` was placed. Needs the campaign's lock."""
    await connection.execute(_sql["inserted"], campaign.tenant_id, campaign.id, batch.skipped)


async def begin(connection: Connection, campaign: Campaign, *, waves_anew: bool) -> None:
    """Begin to place all devices never sent to anew, by the revision in force. Until that is done, nothing is sent.

    ``waves_anew``: the first wave is the current one again. Needs the campaign's lock.
    """
    await connection.execute(_sql["begin"], campaign.tenant_id, campaign.id, waves_anew)


async def store_survey(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    found: Survey,
    *,
    revision: int | None,
    began: str | None,
) -> None:
    """Store the survey for the placing of ``revision`` that ``began`` then (:attr:`Campaign.placing_began`).

    Not applied: another worker has stored one, the policy was edited since, or the placing has begun anew.
    """
    survey = json.dumps(found.to_json())
    await connection.execute(_sql["surveyed"], tenant_id, campaign_id, survey, revision, began)


async def store_fault(connection: Connection, campaign: Campaign, reason: str) -> bool:
    """Store why the devices cannot be placed. False: the same is stored already, or all are placed.

    Needs the campaign's lock.
    """
    return await connection.fetchval(_sql["store_fault"], campaign.tenant_id, campaign.id, reason) is not None


async def advance(connection: Connection, campaign: Campaign, batch: Batch, *, last: bool) -> int | None:
    """Record that a batch was placed anew. Returns the campaign's devices. Needs the campaign's lock."""
    total: int | None = await connection.fetchval(
        _sql["advance"], campaign.tenant_id, campaign.id, batch.devices, batch.up_to, last, batch.skipped
    )
    return total


async def filled(connection: Connection, campaign: Campaign, budget: int, value: str, segment: int) -> None:
    """Record how far the first devices of the values of budgets have returned to the queue."""
    await connection.execute(_sql["filled"], campaign.tenant_id, campaign.id, budget, value, segment)


async def finish(connection: Connection, tenant_id: str, campaign_id: CampaignId) -> None:
    """Record that all devices are placed. Needs the campaign's lock."""
    await connection.execute(_sql["finish"], tenant_id, campaign_id)
    await forget_ranks(connection, tenant_id, campaign_id)


class Unplaced(NamedTuple):
    """Whether devices have no place though all were placed: some that wait for their first command, or in flight."""

    waiting: bool
    in_flight: bool


async def unplaced(connection: Connection, campaign: Campaign) -> Unplaced:
    """Find out whether other SQL, or a retry of what it had written, has left devices without a place."""
    row = await connection.fetchrow(_sql["unplaced"], campaign.tenant_id, campaign.id)
    return Unplaced(*(row or (False, False)))
