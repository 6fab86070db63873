"""Cancels a campaign: aborts it, and lets workers tell its devices in progress (``dispatch/cancel.py``)."""

from __future__ import annotations

from rollwave.domain.campaign import Action, CampaignStatus
from rollwave.domain.events import CampaignCancelled
from rollwave.engine.stop import skip_first
from rollwave.store import campaigns, cancels, events
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection


async def begin_cancel(
    connection: Connection, campaign: Campaign, *, actor: str, reason: str, cut: bool = True
) -> CampaignStatus:
    """Abort the campaign in this transaction, and let workers tell its devices in progress. Needs the campaign's lock.

    A campaign that is ABORTED already is told about too. If it was cancelled before, nothing changes. ``cut``: shorten
    the reason to the width of a host's column.

    Raises:
        Conflict: the campaign has completed.
    """
    key = campaign.tenant_id, campaign.id
    status = await campaigns.move(
        connection, campaign, Action.ABORT, tenant_id=campaign.tenant_id, actor=actor, reason=reason, cut=cut
    )
    devices = await cancels.request(connection, *key)
    if devices is not None:
        await events.append(connection, *key, CampaignCancelled(devices, reason), actor=actor)
    if status is not campaign.status:
        await skip_first(connection, *key)
    return status
