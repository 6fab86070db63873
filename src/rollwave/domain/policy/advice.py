"""What the author of a policy document is told: warnings, and when its windows open next.

It never depends on devices. Dry runs, checks and answers to saving a document have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rollwave.domain.policy.document.model import (
    GateRule,
    GuardrailRule,
    PaceRule,
    PolicyDocument,
    RetryRule,
    ScheduleRule,
)
from rollwave.domain.policy.rules import LONGEST_DELAY_SECONDS
from rollwave.domain.policy.windows import HORIZON_DAYS, Span, next_openings, zone_of
from rollwave.domain.policy.words import Method, Scope


class Advice(NamedTuple):
    """What the author of a document is told.

    ``warnings``: sentences for people. ``openings``: the next five times in which devices without a time zone may be
    sent to, in UTC; empty: the document has no windows, or they do not open any more.
    """

    warnings: Sequence[str]
    openings: Sequence[Span]


def advice(document: PolicyDocument, at: datetime) -> Advice:
    """What the author of a document is told at a moment, which is any aware time."""
    openings = _openings(document.schedule, at)
    told = list(warnings(document))
    if document.schedule is not None:
        told += _of_times(document.schedule, openings, at)
    return Advice(told, openings)


def _of_times(schedule: ScheduleRule, openings: Sequence[Span], at: datetime) -> Iterator[str]:
    if schedule.end is not None and schedule.end <= at:
        yield "schedule.end is in the past: when the campaign is started, it ends without sending anything"
    elif schedule.windows and not openings:
        yield f"the windows do not open within {HORIZON_DAYS} days: until then nothing is sent"
    elif openings and openings[0].end is None and openings[0].start <= max(at, schedule.start or at):
        yield "the windows have no effect: they are always open"


def _openings(schedule: ScheduleRule | None, at: datetime) -> list[Span]:
    """The next five openings of the windows, within the start and the end of the schedule."""
    if schedule is None or not schedule.windows:
        return []
    begin = at if schedule.start is None else max(at, schedule.start)
    found = next_openings(schedule.windows, zone_of(schedule.time_zone) or UTC, None, begin)
    if any(each.cron is not None for each in schedule.windows):
        found = [_within_horizon(each, begin) for each in found]
    return [_before(schedule.end, each) for each in found if schedule.end is None or each.start < schedule.end]


def _within_horizon(opening: Span, begin: datetime) -> Span:
    """An opening without its end, if that is only where the search for the next opening stopped."""
    beyond = opening.end is not None and opening.end - begin >= timedelta(days=HORIZON_DAYS)
    return Span(opening.start, None) if beyond else opening


def _before(end: datetime | None, opening: Span) -> Span:
    if end is None:
        return opening
    return Span(opening.start, min(end, opening.end or end).astimezone(UTC))


def warnings(document: PolicyDocument) -> Iterator[str]:
    """Sentences for people, in the order of the format's keys."""
    for wave in document.waves:
        if wave.gate is not None:
            yield from _of_gate(wave.name, wave.gate, document)
    yield from _of_pace(document.pace or PaceRule())
    if document.guardrails == ():
        yield "guardrails is empty: failures never stop the campaign"
    for rule in document.guardrails or ():
        yield from _of_guardrail(rule, document.order)
    if document.retry is not None:
        yield from _of_retry(document.retry)
    if document.schedule is not None:
        yield from _of_schedule(document.schedule)


def _of_gate(wave: str, gate: GateRule, document: PolicyDocument) -> Iterator[str]:
    # A guardrail with the method ratio always acts itself at a gate.
    can_fail = any(each.method is Method.SEQUENTIAL for each in document.guardrails or ())
    if "on_fail" in gate.model_fields_set and gate.success_rate is None and not can_fail:
        yield (
            f"on_fail has no effect in the gate of wave {wave}: without success_rate or a sequential guardrail "
            "the gate cannot fail"
        )


def _of_pace(pace: PaceRule) -> Iterator[str]:
    if pace.bytes is not None and not pace.bytes.limits:
        yield "pace.bytes has no effect: it is empty"
    if pace.per_minute is None and pace.max_in_flight is None and (pace.bytes is None or not pace.bytes.limits):
        yield "pace sets no limit: all devices of a wave are sent to at once"
    if pace.ramp is not None and pace.per_minute is not None and pace.ramp.from_ >= pace.per_minute:
        yield "pace.ramp has no effect: it begins at per_minute or above, and never exceeds per_minute"


def _of_guardrail(rule: GuardrailRule, order: str | None) -> Iterator[str]:
    if rule.threshold.fraction == 1:
        yield f"the guardrail {rule.name} never trips: its threshold is 100 %"
    if rule.method is Method.SEQUENTIAL and order not in {None, "hash"}:
        yield f"the guardrail {rule.name} is sequential: without the order hash, clumps of failures trip it"
    if rule.alpha is not None and rule.method is not Method.SEQUENTIAL:
        yield f"alpha has no effect in the guardrail {rule.name}: its method is {rule.method}, and not sequential"
    if rule.per is not None and rule.scope is not Scope.SEGMENT:
        yield f"per has no effect in the guardrail {rule.name}: its scope is {rule.scope}, and not segment"


def _of_retry(retry: RetryRule) -> Iterator[str]:
    longest = LONGEST_DELAY_SECONDS if retry.max_delay is None else retry.max_delay
    if retry.delay is not None and retry.delay > longest:
        yield "retry.delay has no effect: it is longer than max_delay, so every delay is max_delay"


def _of_schedule(schedule: ScheduleRule) -> Iterator[str]:
    if "at_end" in schedule.model_fields_set and schedule.end is None:
        yield "schedule.at_end has no effect: the schedule has no end"
    for window in schedule.windows:
        if window.time_zone is not None and window.cron is None:
            yield f"time_zone has no effect in the window {window.name}: its start and end name their own zone"
    if schedule.ignore_freezes:
        yield "schedule.ignore_freezes: freezes do not stop the campaign, and to start it takes an approver"
