"""Keeps the numbers of a campaign's guardrails, and judges them. Acting on a trip is :mod:`rollwave.engine.stop`'s.

For campaigns under a policy document. All functions need the campaign's lock.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rollwave.domain.events import ENGINE
from rollwave.domain.execution import Cell, Place
from rollwave.domain.policy import guardrail, trials
from rollwave.domain.policy.document.model import GuardrailRule
from rollwave.domain.policy.ended_devices import EndedDevices, EndedInCampaign
from rollwave.domain.policy.guardrail import Numbers, Trip
from rollwave.domain.policy.placing import name_of_wave
from rollwave.domain.policy.trials import prefixes
from rollwave.domain.policy.words import Method, Scope, TripAction
from rollwave.domain.policy_events import GuardrailTripped, SegmentQuarantined
from rollwave.domain.retry import Reason
from rollwave.store import events, segment_quarantine, segments
from rollwave.store import guardrails as store
from rollwave.store.campaign_rows import AnyCampaign, Campaign
from rollwave.store.database import Connection
from rollwave.store.guardrails import NO_LABELS, NO_WAVE, Counted, Group, Test, Wanted


@dataclass(frozen=True, slots=True)
class Tripped:
    """A guardrail that has just tripped, with the number of its test."""

    test: int
    trip: Trip


async def drawn(connection: Connection, campaign: Campaign, dispatched: Iterable[Place]) -> None:
    """Number devices that are sent their first command, for the guardrails that judge devices in that order.

    ``dispatched``: the places of those of a claim. They have dispatch numbers.
    """
    rules = {each.name: each for each in rules_of(campaign) if each.method is Method.SEQUENTIAL}
    if not rules or not (places := list(dispatched)):
        return
    groups = await _Groups.of(connection, campaign, rules.values(), {each.segment for each in places})
    numbers: dict[Group, list[int]] = defaultdict(list)
    for rule in rules.values():
        for place in places:
            group = groups.find(rule, place)
            if group is not None and place.dispatch_number is not None:
                numbers[group].append(place.dispatch_number)
    found = await store.find_last(connection, campaign, list(numbers))
    if missing := [each for each in numbers if each not in found]:
        await _begin(connection, campaign, missing, rules)
        found |= await store.find_last(connection, campaign, missing)
    changed = {}
    for group, of_group in numbers.items():
        last = found[group]
        changed[last.test] = trials.draw(last.bucket, last.dispatched, of_group), len(of_group)
    await store.draw(connection, campaign, changed)


async def ended(connection: Connection, campaign: AnyCampaign, devices: EndedInCampaign) -> list[Tripped]:
    """Count devices that are ``SUCCESS`` or ``FAILED`` for good now, and judge the tests whose numbers changed.

    Returns those that trip. Whoever acts on them records them with :func:`record`.
    """
    rules = {each.name: each for each in rules_of(campaign)}
    numbers = {each.cell.segment for each in devices.places if each.cell is not None}
    groups = await _Groups.of(connection, campaign, rules.values(), numbers)
    changes: dict[Group, EndedDevices] = defaultdict(EndedDevices)
    for at_place in devices.places:
        for rule in rules.values():
            others = at_place.counted(rule)
            if (at_place.successes or others) and (group := groups.find(rule, at_place.cell)) is not None:
                changes[group].add(at_place, others)
    if not changes:
        return []
    wanted = {group: _wanted(rules[group.guardrail], group, change) for group, change in changes.items()}
    found = await store.find(connection, campaign, list(wanted.values()))
    if missing := [each for each in changes if each not in found]:
        await _begin(connection, campaign, missing, rules, changes)
        found |= await store.find(connection, campaign, [wanted[each] for each in missing])
    counted = {group: _count(rules[group.guardrail], found[group], change) for group, change in changes.items()}
    await store.count(connection, campaign, list(counted.values()))
    judged = (_judge(campaign, rules[group.guardrail], group, each) for group, each in counted.items())
    return [each for each in judged if each is not None]


def _wanted(rule: GuardrailRule, group: Group, change: EndedDevices) -> Wanted:
    numbers = change.numbers
    if rule.method is not Method.SEQUENTIAL or not numbers:
        return Wanted(group, 0, -1, judged=False, whole_below=0)
    any_failed = any(each.failed for each in change.others)
    return Wanted(group, min(numbers), max(numbers), any_failed, guardrail.min_finished(rule))


async def _begin(
    connection: Connection,
    campaign: AnyCampaign,
    groups: Sequence[Group],
    rules: Mapping[str, GuardrailRule],
    ended: Mapping[Group, EndedDevices] | None = None,
) -> None:
    """Begin the tests of groups that have none. ``ended``: devices that this transaction has ended.

    A group has a test from its first device on that is sent to or ends. So devices of these groups that are in flight
    now, or that this transaction has ended, were in flight when the guardrail began anew.
    """
    begun = await store.begin(connection, campaign, groups, rules)
    covering = {
        group: test
        for group, test in begun.items()
        if test.began_after and rules[group.guardrail].method is Method.SEQUENTIAL
    }
    if covering:
        were_in_flight = [
            (test.number, number)
            for group, test in covering.items()
            if ended is not None
            for number in ended[group].first_ended
        ]
        await store.cover_in_flight(connection, campaign, [each.number for each in covering.values()], were_in_flight)


def _count(rule: GuardrailRule, test: Test, change: EndedDevices) -> Counted:
    """Add the devices that have ended. One that failed before the test began, for what the guardrail does not count,
    may fail now for what it counts: then it has finished for this test, too.
    """
    successes, others = change.successes, change.others
    finished = len(successes) + sum(each.finished for each in others)
    failed = sum(each.failed for each in others)
    if rule.method is Method.SEQUENTIAL:  # a device without a number has no place in the order
        changed = trials.end(test.buckets, others, successes)
        buckets = [changed.get(index, each) for index, each in enumerate(test.buckets)]
        return Counted(replace(test, buckets=buckets), finished, failed, [changed[index] for index in sorted(changed)])
    finished, failed = change.finished + finished, change.failed + failed
    return Counted(test, max(finished, test.failed + failed - test.finished), failed)


def _judge(campaign: AnyCampaign, rule: GuardrailRule, group: Group, counted: Counted) -> Tripped | None:
    """Judge a test after its numbers changed. A success can trip it only if it reaches the minimum of finished ones."""
    test = counted.test
    finished, failed = test.finished + counted.finished, test.failed + counted.failed
    reaches_minimum = test.finished < guardrail.min_finished(rule) <= finished
    if test.tripped or not (counted.failed or reaches_minimum):
        return None
    first = 0 if reaches_minimum else min((each.first for each in counted.buckets), default=0)
    place = next((index for index, each in enumerate(test.buckets) if each.first >= first), 0)
    found = guardrail.judge(rule, Numbers(finished, failed, test.groups, prefixes(test.before, test.buckets)[place:]))
    return None if found is None else Tripped(test.number, _of_group(found, group, campaign))


async def judge_all(connection: Connection, campaign: Campaign, *, at_gate: bool) -> list[Tripped]:
    """Judge every test that has not tripped, after counters were compared with rows, or at the gate of a wave.

    ``at_gate``: a ratio trips for any number of finished devices. Of guardrails of waves, the present wave's is judged.
    """
    rules = {each.name: each for each in rules_of(campaign)}
    await _match_counters(connection, campaign, rules)
    names = [each.name for each in rules.values() if not at_gate or each.method is Method.RATIO]
    tripped = []
    for each in await store.in_force(connection, campaign, names):
        rule = rules[each.group.guardrail]
        if at_gate and rule.scope is Scope.WAVE and each.group.wave != campaign.wave:
            continue
        found = guardrail.judge(rule, each.numbers, at_gate=at_gate)
        if found is not None:
            gate = name_of_wave(campaign.document, campaign.wave) if at_gate else None
            tripped.append(Tripped(each.number, replace(_of_group(found, each.group, campaign), gate=gate)))
    return tripped


async def over_threshold(connection: Connection, campaign: Campaign) -> str:
    """The tests that are over their thresholds and have not tripped, as a phrase: too few devices have finished.

    They keep the gate of the present wave closed. Empty: there are none. Of guardrails of waves, the present wave's is
    judged. Does not need the campaign's lock.
    """
    rules = {each.name: each for each in rules_of(campaign)}
    found = []
    for each in await store.in_force(connection, campaign, list(rules)) if rules else ():
        if each.group.wave in {NO_WAVE, campaign.wave}:
            trip = guardrail.over(rules[each.group.guardrail], each.numbers)
            found += [_of_group(trip, each.group, campaign).text] if trip is not None else []
    more = [f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return "; ".join([*found[:MAX_NAMED], *more])


MAX_NAMED = 3
"""Maximum number of groups of devices that the reason of a closed gate names."""


async def _match_counters(connection: Connection, campaign: Campaign, rules: Mapping[str, GuardrailRule]) -> None:
    names = [
        each.name
        for each in rules.values()
        if each.method is Method.RATIO
        and each.scope is Scope.CAMPAIGN
        and each.codes is None
        and set(each.count) == set(Reason)
    ]
    groups = [Group(each) for each in names]
    if not names or not campaign.succeeded + campaign.failed:
        return
    found = await store.find(connection, campaign, [Wanted(each, 0, -1, False, 0) for each in groups])
    if missing := [each for each in groups if each not in found]:
        await store.begin(connection, campaign, missing, rules)
    await store.match_counters(connection, campaign, names)


async def record(connection: Connection, campaign: Campaign, tripped: Tripped) -> None:
    """Store a trip with its evidence, and put segments under quarantine if the guardrail says so.

    The evidence is the rule, the numbers, the limit, and some of the failed devices.
    """
    trip = tripped.trip
    event = GuardrailTripped(
        trip.of,
        guardrail.rule_text(trip.rule),
        trip.value,
        trip.action.value,
        trip.failed,
        await store.failed_devices(connection, campaign, tripped.test, trip),
        trip.rule.name,
        wave=trip.wave,
        alpha=trip.alpha,
        limit=trip.limit,
        labels=None if trip.labels is None else dict(trip.labels),
        wave_name=trip.wave_name,
    )
    await store.trip(connection, campaign, tripped.test, event.to_detail())
    await events.append(connection, campaign.tenant_id, campaign.id, event, actor=ENGINE)
    if trip.action is not TripAction.QUARANTINE:
        return
    for number in await segment_quarantine.quarantine(connection, campaign, trip.labels or {}, trip.text):
        quarantined = SegmentQuarantined(trip.text, number, trip.rule.name, event.labels)
        await events.append(connection, campaign.tenant_id, campaign.id, quarantined, actor=ENGINE)


def rules_of(campaign: AnyCampaign) -> tuple[GuardrailRule, ...]:
    """The guardrails of a campaign's document. None, if it has no document that can be read."""
    return () if campaign.document is None else guardrail.rules_of(campaign.document)


class _Groups:
    """The groups of devices by the rules. Reads the labels of their segments, if a rule asks for any."""

    def __init__(self, labels: Mapping[int, Mapping[str, object]]) -> None:
        self._labels = labels
        self._known: dict[tuple[str, int, int], Group | None] = {}

    @classmethod
    async def of(
        cls,
        connection: Connection,
        campaign: AnyCampaign,
        rules: Iterable[GuardrailRule],
        numbers: Collection[int],
    ) -> _Groups:
        """``numbers``: the segments of the devices that are counted."""
        if not numbers or all(each.scope is not Scope.SEGMENT for each in rules):
            return cls({})
        # Of a campaign whose row was not read, it is not known whether its segments may change.
        found = await (
            segments.described(connection, campaign, numbers)
            if isinstance(campaign, Campaign)
            else segments.read(connection, campaign, numbers)
        )
        return cls({number: each.labels for number, each in found.items()})

    def find(self, rule: GuardrailRule, place: Place | Cell | None) -> Group | None:
        """The group of a device. None: the guardrail does not count the device, which has no place, or not its last."""
        if rule.scope is Scope.CAMPAIGN:
            return Group(rule.name)
        if place is None:
            return None
        key = rule.name, place.wave, place.segment
        if key not in self._known:
            self._known[key] = self._make(rule, place)
        return self._known[key]

    def _make(self, rule: GuardrailRule, place: Place | Cell) -> Group | None:
        if rule.scope is Scope.WAVE:
            return Group(rule.name, wave=place.wave)
        labels = self._labels.get(place.segment)
        if labels is None or not labels.keys() >= set(rule.per or ()):
            return None  # an edit has just asked for more labels, and the device is not moved yet
        return Group.of_segment(rule, labels)


def _of_group(trip: Trip, group: Group, campaign: AnyCampaign) -> Trip:
    labels = None if group.labels == NO_LABELS else json.loads(group.labels)
    if group.wave == NO_WAVE:
        return replace(trip, labels=labels)
    return replace(trip, wave=group.wave, wave_name=name_of_wave(campaign.document, group.wave), labels=labels)
