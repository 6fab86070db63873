"""Ends a campaign at the end of its policy's schedule."""

from __future__ import annotations

from rollwave.domain.campaign import Action
from rollwave.domain.events import ENGINE
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.words import AtEnd
from rollwave.engine.cancel import begin_cancel
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.engine.stop import skip_first
from rollwave.store import campaigns
from rollwave.store.database import Connection

SCHEDULE_ENDED = "schedule ended"
"""The reason of the campaign's end."""


async def end_if_over(connection: Connection, locked: CampaignUnderPolicy) -> bool:
    """Abort the campaign in this transaction if its schedule has ended. Returns whether it has. Needs its lock.

    Devices that were never sent to are skipped, the first thousand here, the others by workers in batches, as after an
    abort. With ``at_end: cancel``, workers also tell the devices in progress. A campaign that was not started is left
    alone: its author may still edit the policy, and nothing is sent if it is started after the end.
    """
    campaign, document = locked.row, locked.policy.document
    rule = None if document is None else document.schedule
    if rule is None or not time_gates.has_ended(document, campaign.read_at):
        return False
    if rule.at_end is AtEnd.CANCEL:
        await begin_cancel(connection, campaign, actor=ENGINE, reason=SCHEDULE_ENDED)
        return True
    await campaigns.move(
        connection, campaign, Action.ABORT, tenant_id=campaign.tenant_id, actor=ENGINE, reason=SCHEDULE_ENDED
    )
    await skip_first(connection, campaign.tenant_id, campaign.id)
    return True
