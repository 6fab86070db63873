"""Writes to a campaign's history what stops it: a halt or a freeze of its tenant, and the end of that."""

from __future__ import annotations

from rollwave.domain import brakes as rules
from rollwave.domain.brakes import Brake, BrakeKind
from rollwave.domain.events import ENGINE
from rollwave.domain.policy.time_gates import ignores_freezes
from rollwave.domain.policy_events import SendingResumed, SendingStopped
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.log import get_logger
from rollwave.store import brakes, campaigns, events
from rollwave.store.database import Connection

_log = get_logger("upkeep")


async def note_brakes(connection: Connection, locked: CampaignUnderPolicy) -> None:
    """Write an event for each brake that stops the campaign since the last look, and for each that no longer does.

    Needs the campaign's lock. The brake itself has its audit row, which the transaction of the operator wrote; these
    events show it where people look at the campaign.
    """
    campaign = locked.row
    stopping = {each.label: each for each in _stopping(locked)}
    if tuple(stopping) == campaign.stopped_by:
        return
    key = campaign.tenant_id, campaign.id
    for label in campaign.stopped_by:
        if label not in stopping:
            kind, name = rules.of_label(label)
            actor = await brakes.lifted_by(connection, campaign.tenant_id, kind, name)
            await events.append(connection, *key, SendingResumed(kind, name), actor=actor or ENGINE)
    for label, brake in stopping.items():
        if label not in campaign.stopped_by:
            until = None if brake.end is None else brake.end.isoformat()
            stopped = SendingStopped(brake.kind, brake.name, until, brake.reason)
            await events.append(connection, *key, stopped, actor=brake.by)
    await campaigns.set_stopped_by(connection, campaign, list(stopping))
    _log.info(
        "ota_campaign_brakes_changed", campaign_id=campaign.id, tenant_id=campaign.tenant_id, stopped_by=list(stopping)
    )


def _stopping(locked: CampaignUnderPolicy) -> list[Brake]:
    """The brakes that stop this campaign now, in the order of their labels."""
    at, ignored = locked.row.read_at, ignores_freezes(locked.policy.document)
    found = [each for each in locked.row.brakes if each.applies(at) and not (ignored and each.kind is BrakeKind.FREEZE)]
    return sorted(found, key=lambda each: each.label)
