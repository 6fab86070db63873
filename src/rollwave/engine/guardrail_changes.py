"""What an edit of the document, a start and a release do to a campaign's guardrails and its segments under quarantine.

All functions need the campaign's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollwave.domain.events import ENGINE, Entry
from rollwave.domain.policy import guardrail
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.quarantine import Labels, carried
from rollwave.domain.policy.words import Method, Scope, TripAction
from rollwave.domain.policy_events import SegmentQuarantined
from rollwave.engine.guardrails import rules_of
from rollwave.store import events, segment_quarantine
from rollwave.store import guardrails as store
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.guardrails import Group
from rollwave.store.segment_quarantine import SegmentChanges
from rollwave.store.segments import read as read_segments


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


async def keep_quarantine(connection: Connection, campaign: Campaign, changes: SegmentChanges) -> None:
    """Keep devices under quarantine that an edit of the document has moved to other segments.

    Only an operator's release ends a quarantine. So segments that have devices of others under quarantine get it too,
    and new segments whose devices a guardrail has tripped for.
    """
    if not changes.new and not changes.moved:
        return
    quarantined = await segment_quarantine.under_quarantine(connection, campaign)
    entered = {number for _, number in changes.moved}
    described = await read_segments(connection, campaign, {*changes.new, *entered})
    labels = {number: each.labels for number, each in described.items()}
    new = {number: labels[number] for number in changes.new}
    found = carried(new, changes.moved, labels, quarantined)
    await _put(connection, campaign, found)
    kept = {each.number for each in found}
    await _put_tripped(connection, campaign, {number: of for number, of in new.items() if number not in kept})


async def _put_tripped(connection: Connection, campaign: Campaign, new: Mapping[int, Labels]) -> None:
    """Put new segments under quarantine whose devices a guardrail has tripped for. ``new``: their labels by number."""
    rules = [each for each in rules_of(campaign) if each.action is TripAction.QUARANTINE]
    groups = {(number, rule.name): Group.of_segment(rule, labels) for number, labels in new.items() for rule in rules}
    if not groups:
        return
    tripped = await store.tripped_groups(connection, campaign, [*dict.fromkeys(groups.values())])
    because = {number: name for (number, name), group in reversed(groups.items()) if group in tripped}
    segments = [
        (number, None, f"guardrail {name} had tripped for these devices") for number, name in sorted(because.items())
    ]
    await _put(connection, campaign, segments, because)


async def _put(
    connection: Connection,
    campaign: Campaign,
    segments: Sequence[tuple[int, int | None, str]],
    guardrails: Mapping[int, str] | None = None,
) -> None:
    if not segments:
        return
    names = guardrails or {}
    put = await segment_quarantine.put(connection, campaign, segments)
    entries = [
        Entry(campaign.id, SegmentQuarantined(reason, number, names.get(number)), ENGINE) for number, reason in put
    ]
    await events.append_all(connection, campaign.tenant_id, entries)


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
