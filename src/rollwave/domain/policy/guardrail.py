"""The guardrails of a policy document: which failures count, when one trips, and how far it is from tripping.

A test is a guardrail for one group of devices: the campaign, a wave, or the devices with the same labels. It counts
each device once: as a failure when the device is ``FAILED`` for good, in the class of its last attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.domain.execution import Place
from rollwave.domain.policy import sequential
from rollwave.domain.policy.document.model import GuardrailRule, PolicyDocument
from rollwave.domain.policy.sequential import Prefix
from rollwave.domain.policy.words import Method, Scope, TripAction, group_text
from rollwave.domain.retry import Reason

DEFAULT_ALPHA = 0.01
MIN_FINISHED = {Method.RATIO: 1, Method.SEQUENTIAL: 5}
"""Minimum number of finished devices before a guardrail may trip, if its rule does not set one."""

DEFAULT_NAME = "failures"
DEFAULT_RULES = (GuardrailRule.model_validate({"name": DEFAULT_NAME, "threshold": "10%"}),)
"""The guardrail of a document without the key ``guardrails``, as of a campaign with flat columns."""


class Failure(NamedTuple):
    """Why a device failed: its class, and the code that the device reported in its last attempt."""

    reason: Reason
    code: str | None = None


class Trial(NamedTuple):
    """A device that has ended: ``failure`` is None if it has succeeded.

    ``place``: None if another system sent to it before it was placed. ``before``: its earlier failures, which a retry
    by an operator followed.
    """

    place: Place | None
    failure: Failure | None
    before: Sequence[Failure] = ()


def rules_of(document: PolicyDocument) -> tuple[GuardrailRule, ...]:
    """The guardrails of a document, with the default one if the key is missing."""
    return DEFAULT_RULES if document.guardrails is None else document.guardrails


def flat_rule(threshold: float, min_completed: int) -> GuardrailRule:
    """The guardrail of flat columns, as a document has it. ``threshold``: a share, 0 to 1."""
    return GuardrailRule.model_validate(
        {"name": DEFAULT_NAME, "threshold": f"{threshold * 100:.9f}%", "min_finished": min_completed}
    )


def changed_rules(old: PolicyDocument | None, new: PolicyDocument) -> list[str]:
    """The names of the guardrails of ``new`` whose tests begin anew, because ``old`` has another rule of that name.

    ``old`` None: the campaign followed its flat columns. A guardrail that ``old`` lacks is one of them.
    """
    before = {} if old is None else {each.name: each for each in rules_of(old)}
    return [each.name for each in rules_of(new) if before.get(each.name) != each]


def counts(rule: GuardrailRule, failure: Failure) -> bool:
    """Whether a failure counts for a guardrail, by its class and code."""
    return failure.reason in rule.count and (rule.codes is None or failure.code in rule.codes)


def read_failures(stored: Iterable[str]) -> list[Failure]:
    """Read stored failures, without those that another version or other SQL wrote."""
    parts = (each.partition(":") for each in stored)
    return [Failure(_REASONS[reason], code or None) for reason, _, code in parts if reason in _REASONS]


_REASONS = {each.value: each for each in Reason}


def is_new(trial: Trial) -> bool:
    """Whether the device has not been counted as finished before. A retry by an operator does not count it again."""
    return not trial.before


def fails_anew(rule: GuardrailRule, trial: Trial) -> bool:
    """Whether the device becomes a counted failure now. A counted failure stays one, whatever a retry brings."""
    if trial.failure is None or not counts(rule, trial.failure):
        return False
    return not any(counts(rule, each) for each in trial.before)


def min_finished(rule: GuardrailRule) -> int:
    """Minimum number of finished devices before the guardrail may trip."""
    return MIN_FINISHED[rule.method] if rule.min_finished is None else rule.min_finished


def alpha(rule: GuardrailRule, groups: int) -> float:
    """The chance of a false alarm of one test. ``groups``: those of the guardrail when the test began, at least 1."""
    return (DEFAULT_ALPHA if rule.alpha is None else rule.alpha) / (groups if rule.scope is Scope.SEGMENT else 1)


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one test. ``groups``: groups of the guardrail when the test began.

    ``prefixes``: the devices up to the end of each bucket, in the order in which they were sent to; the last is all of
    them. Only the sequential method has them.
    """

    finished: int
    failed: int
    groups: int = 1
    prefixes: Sequence[Prefix] = ()


@dataclass(frozen=True, slots=True)
class Trip:
    """A guardrail that has tripped, with the numbers by which it did.

    ``value``: the share of failures, 0 to 1, of ``failed`` in ``of`` devices: of the finished ones (ratio), or of those
    that were sent to first (sequential). ``limit``: the lower bound on the true share of failures, which exceeds the
    threshold; None: the method has none. ``wave``, with its name, or ``labels`` say which group of devices it judged.
    ``gate``: the name of the wave at whose gate it was judged.
    """

    rule: GuardrailRule
    failed: int
    of: int
    value: float
    limit: float | None = None
    alpha: float | None = None
    wave: int | None = None
    labels: Mapping[str, object] | None = None
    wave_name: str | None = None
    gate: str | None = None

    @property
    def action(self) -> TripAction:
        """What the guardrail does."""
        return self.rule.action

    @property
    def text(self) -> str:
        """The reason for people."""
        group = f"wave {self.wave_name}" if self.wave_name is not None else group_text(self.labels)
        which = f" of {group}" if group else ""
        where = f"at the gate of wave {self.gate}, " if self.gate is not None else ""
        if self.limit is None or self.alpha is None:
            shown = f"{where}{self.failed:,} of {self.of:,} finished devices{which} failed"
            return f"guardrail {self.rule.name}: {shown} ({self.value:.1%}, over {float(self.rule.threshold):.1%})"
        shown = f"{self.failed:,} of the first {self.of:,} devices{which} failed"
        sure = f"with {(1 - self.alpha) * 100:.4g}% confidence"
        return (
            f"guardrail {self.rule.name}: {shown} ({self.value:.1%}); {sure}, at least {self.limit:.1%} of all would, "
            f"which is over {float(self.rule.threshold):.1%}"
        )


def judge(rule: GuardrailRule, numbers: Numbers, *, at_gate: bool = False) -> Trip | None:
    """Whether the guardrail trips on these numbers. ``at_gate``: at the end of a wave, a ratio needs no minimum."""
    needed = 1 if at_gate and rule.method is Method.RATIO else min_finished(rule)
    return over(rule, numbers) if numbers.finished >= needed else None


def over(rule: GuardrailRule, numbers: Numbers) -> Trip | None:
    """Whether the guardrail is over its threshold on these numbers, whatever its minimum of finished devices."""
    if not numbers.finished:
        return None
    if rule.method is Method.RATIO:
        if numbers.failed <= rule.threshold.fraction * numbers.finished:
            return None
        return Trip(rule, numbers.failed, numbers.finished, numbers.failed / numbers.finished)
    allowed = alpha(rule, numbers.groups)
    if not sequential.trips(numbers.prefixes, float(rule.threshold), allowed):
        return None
    found = sequential.bound(numbers.prefixes, allowed)
    return Trip(rule, found.prefix.failed, found.prefix.sent, found.value, found.limit, allowed)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a guardrail is from tripping. Shares are 0 to 1.

    ``limit`` is None for the method ratio, which has no bound. ``trips_after``: the least number of further failures
    that trip it, whatever its minimum of finished devices; None: no number does.
    """

    value: float
    limit: float | None
    trips_after: int | None


def standing(rule: GuardrailRule, numbers: Numbers) -> Standing:
    """How far the guardrail is from tripping on these numbers, which must have all prefixes."""
    if rule.method is Method.RATIO:
        value = numbers.failed / numbers.finished if numbers.finished else 0.0
        return Standing(value, None, _ratio_trips_after(rule, numbers))
    allowed, threshold = alpha(rule, numbers.groups), float(rule.threshold)
    found = sequential.bound(numbers.prefixes, allowed)
    return Standing(found.value, found.limit, sequential.trips_after(numbers.prefixes, threshold, allowed))


def _ratio_trips_after(rule: GuardrailRule, numbers: Numbers) -> int | None:
    """The least n for which failed + n of finished + n devices are over the threshold, and at least the minimum."""
    threshold = rule.threshold.fraction
    if threshold >= 1:
        return None
    over = (threshold * numbers.finished - numbers.failed) / (1 - threshold)
    further = max(0, over.__floor__() + 1)
    return max(further, min_finished(rule) - numbers.finished)


def rule_text(rule: GuardrailRule) -> dict[str, object]:
    """A guardrail's keys as its document has them, with the defaults that the rule itself has."""
    shown = rule.model_dump(mode="python", exclude={"threshold"}, exclude_none=True)
    return {**{key: _plain(value) for key, value in shown.items()}, "threshold": float(rule.threshold)}


def _plain(value: object) -> object:
    return [str(each) for each in value] if isinstance(value, tuple) else value
