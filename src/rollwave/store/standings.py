"""How far the guardrails of a campaign are from tripping, for people. Reads without the campaign's lock."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollwave.domain.policy import guardrail
from rollwave.domain.policy.document.model import GuardrailRule, PolicyDocument
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.guardrail import Numbers, Standing, standing
from rollwave.domain.policy.words import Method, Scope
from rollwave.errors import UnreadableRow
from rollwave.store import guardrail_page
from rollwave.store.database import Connection
from rollwave.store.guardrail_page import Asked, Shown
from rollwave.store.guardrails import NO_LABELS, NO_WAVE
from rollwave.store.moments import Document, moment

MAX_GROUPS_READ = 20
"""Maximum number of groups of a guardrail that are read, those with the largest share of failures first."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A campaign with its guardrails: those of its ``document``, or of its flat columns if it has no ``revision``.

    ``document`` None: it cannot be read. ``in_short``: only guardrails that have tripped are wanted, if it has a
    document. ``by_operator``: a person has ended it, so the guardrail of its flat columns did not trip.
    """

    id: int
    succeeded: int
    failed: int
    threshold: float | None
    min_completed: int | None
    revision: int | None
    document: PolicyDocument | None
    in_short: bool = False
    by_operator: bool = False


async def standings(connection: Connection, tenant_id: str, guarded: Sequence[Guarded]) -> dict[int, list[Document]]:
    """The guardrails of campaigns in their order, each with the group of devices that is closest to tripping.

    By the id of the campaign. Empty if it has none, or if they cannot be read.
    """
    rules = {each.id: guardrail.rules_of(each.document) for each in guarded if each.document is not None}
    asked = [Asked(each.id, rule.name, each.in_short) for each in guarded for rule in rules.get(each.id, ())]
    tests = defaultdict(list)
    for found in await guardrail_page.page(connection, tenant_id, asked, limit=MAX_GROUPS_READ):
        tests[found.campaign_id, found.test.group.guardrail].append(found)
    shown: dict[int, list[Document]] = {}
    for each in guarded:
        if each.revision is None:
            shown[each.id] = _of_columns(each)
            continue
        of_scope = [(rule, _of_scope(rule, tests[each.id, rule.name])) for rule in rules.get(each.id, ())]
        shown[each.id] = [_shown(rule, found) for rule, found in of_scope if found or not each.in_short]
    return shown


def _of_columns(campaign: Guarded) -> list[Document]:
    """The guardrail of a campaign with flat columns, by its counters."""
    try:
        flat = Guardrail.read(campaign.threshold, campaign.min_completed)
    except UnreadableRow:
        return []
    rule = guardrail.flat_rule(flat.threshold, flat.min_completed)
    found = standing(rule, Numbers(campaign.succeeded + campaign.failed, campaign.failed))
    trips = flat.trips(campaign.succeeded, campaign.failed)
    if trips and campaign.by_operator:
        found = replace(found, trips_after=None)
    tripped = trips and not campaign.by_operator
    finished = campaign.succeeded + campaign.failed
    return [_entry(rule, found, finished, campaign.failed) | {"threshold": flat.threshold, "tripped": tripped}]


def _of_scope(rule: GuardrailRule, tests: Sequence[Shown]) -> list[Shown]:
    """The tests that judge devices: of a wave's guardrail the last wave's, and those that have tripped."""
    if rule.scope is Scope.SEGMENT:
        return [each for each in tests if each.test.group.labels != NO_LABELS]
    if rule.scope is Scope.WAVE:
        last = max((each.test.group.wave for each in tests), default=NO_WAVE)
        return [
            each
            for each in tests
            if each.test.group.wave > NO_WAVE and (each.tripped_at or each.test.group.wave == last)
        ]
    return list(tests)


def _shown(rule: GuardrailRule, tests: Sequence[Shown]) -> Document:
    if not tests:
        return _entry(rule, standing(rule, Numbers(0, 0)))
    standing_of = {each.test.number: standing(rule, each.test.numbers) for each in tests}
    closest = max(
        tests, key=lambda each: (each.tripped_at is not None, *_closeness(rule, standing_of[each.test.number]))
    )
    group, found = closest.test.group, standing_of[closest.test.number]
    tripped = closest.tripped_at is not None
    if tripped:
        found = Standing(found.value, found.limit, 0)
    numbers = closest.test.numbers
    return _entry(rule, found, numbers.finished, numbers.failed) | {
        "tripped": tripped,
        "tripped_at": None if closest.tripped_at is None else moment(closest.tripped_at),
        "evidence": closest.evidence,
        "wave": None if group.wave == NO_WAVE else group.wave,
        "labels": None if group.labels == NO_LABELS else json.loads(group.labels),
    }


def _closeness(rule: GuardrailRule, found: Standing) -> tuple[float, float]:
    share = found.value if rule.method is Method.RATIO else found.limit or 0.0
    return share, -(found.trips_after or 0)


def _entry(rule: GuardrailRule, found: Standing, finished: int = 0, failed: int = 0) -> Document:
    return {
        "name": rule.name,
        "scope": rule.scope.value,
        "method": rule.method.value,
        "action": rule.action.value,
        "value": found.value,
        "limit": found.limit,
        "threshold": float(rule.threshold),
        "trips_after": found.trips_after,
        "finished": finished,
        "failed": failed,
        "min_finished": guardrail.min_finished(rule),
        "tripped": False,
        "tripped_at": None,
        "evidence": None,
        "wave": None,
        "labels": None,
    }
