"""What an edit of the document, a start and a release do to a campaign's guardrails and its segments under quarantine.

All functions need the campaign's lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.events import ENGINE
from rollwave.domain.policy import guardrail
from rollwave.domain.policy.document.model import Method, PolicyDocument, Scope, TripAction
from rollwave.domain.policy_events import SegmentQuarantined
from rollwave.engine.guardrails import rules_of
from rollwave.store import events, segment_quarantine
from rollwave.store import guardrails as store
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.segment_quarantine import SegmentChanges


async def begin_paused_anew(connection: Connection, campaign: Campaign) -> None:
    """Begin new tests for the guardrails that tripped and pause the campaign, since an operator has started it."""
    await _begin_anew(
        connection, campaign, [each.name for each in rules_of(campaign) if each.action is TripAction.PAUSE]
    )


async def begin_released_anew(connection: Connection, campaign: Campaign, segment: int) -> None:
    """Begin new tests for the guardrails that put this segment under quarantine, since an operator has released it."""
    names = [each.name for each in rules_of(campaign) if each.action is TripAction.QUARANTINE]
    await _begin_anew(connection, campaign, names, segment)


async def _begin_anew(
    connection: Connection, campaign: Campaign, names: Sequence[str], segment: int | None = None
) -> None:
    tests = await store.tripped(connection, campaign, names, segment=segment) if names else {}
    if not tests:
        return
    await store.begin_anew(connection, campaign, list(tests))
    ordered = {each.name for each in rules_of(campaign) if each.method is Method.SEQUENTIAL}
    if covering := [number for number, name in tests.items() if name in ordered]:
        await store.cover_in_flight(connection, campaign, covering)


async def carry_quarantine(connection: Connection, campaign: Campaign, changes: SegmentChanges) -> None:
    """Keep devices under quarantine that are in other segments since an edit of the document."""
    for segment, reason, _ in await segment_quarantine.carry(connection, campaign, changes):
        event = SegmentQuarantined(reason, segment)
        await events.append(connection, campaign.tenant_id, campaign.id, event, actor=ENGINE)


async def quarantine_new_segments(connection: Connection, campaign: Campaign) -> None:
    """Keep devices under quarantine that an edit of the document has placed in new segments."""
    names = [each.name for each in rules_of(campaign) if each.action is TripAction.QUARANTINE]
    for segment, reason, name in await segment_quarantine.quarantine_new(connection, campaign, names) if names else ():
        quarantined = SegmentQuarantined(reason, segment, name)
        await events.append(connection, campaign.tenant_id, campaign.id, quarantined, actor=ENGINE)


async def replace_document(
    connection: Connection, campaign: Campaign, old: PolicyDocument | None, new: PolicyDocument, *, revision: int
) -> None:
    """Begin new tests for the guardrails that an edit of the document changes. ``revision``: the new one.

    ``old`` None: the campaign followed its flat columns, or its document cannot be read.
    """
    anew = guardrail.changed_rules(old, new)
    rules = guardrail.rules_of(new)
    kept = [each.name for each in rules if each.name not in anew]
    first = await store.replace_rules(connection, campaign, kept=kept, anew=anew, revision=revision)
    # Tests of waves and segments cover the devices in flight when they begin (guardrails.begin).
    covering = [
        first[each.name]
        for each in rules
        if each.name in first and each.method is Method.SEQUENTIAL and each.scope is Scope.CAMPAIGN
    ]
    if covering:
        await store.cover_in_flight(connection, campaign, covering)
