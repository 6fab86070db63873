"""How many devices are exposed at most before a guardrail can act: what a dry run tells an operator."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil

from rollwave.domain.policy.document.model import GateRule, GuardrailRule, PaceRule, PolicyDocument
from rollwave.domain.policy.document.units import Share
from rollwave.domain.policy.guardrail import alpha, min_finished, rules_of
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.sequential import is_evidence
from rollwave.domain.policy.words import Method, Scope, TripAction
from rollwave.domain.retry import Reason


def exposed_devices(policy: Policy, *, waves: Sequence[int], segments: int) -> int | None:
    """The most devices that are sent to before a guardrail can act, if every one of them fails. None: none does.

    Guardrails that count only some classes or codes of failures may see none of them, and are left out, as are those
    that never trip.

    A guardrail acts when enough devices have failed for good, which takes a silent device all of its attempts. Until
    then, the caps on devices in flight and the pace bound the number; and the first wave does, if its gate stays closed
    when all of its devices fail. Of guardrails of segments, each segment may expose as many.

    Args:
        waves: number of devices of each wave.
    """
    document = policy.document
    if document is None:
        return None
    exposed = [
        _exposed(each, policy, document, waves, segments)
        for each in rules_of(document)
        if each.codes is None and set(each.count) == set(Reason) and each.threshold.fraction < 1
    ]
    return min(exposed, default=None)


def _exposed(rule: GuardrailRule, policy: Policy, document: PolicyDocument, waves: Sequence[int], segments: int) -> int:
    first, *later = waves
    pace, of_first = document.pace or PaceRule(), document.waves[0] if document.waves else None
    closed = not later or _stays_closed(rule, of_first.gate if of_first else None, first, segments)
    caps = [pace.max_in_flight, of_first.max_in_flight if of_first and closed else None]
    if pace.per_minute is not None:  # so many may be sent to before the first of them has failed for good
        caps.append(ceil(pace.per_minute / 60 * _longest_failure(policy)) + 1)
    most = first if closed else sum(waves)
    in_flight = min((each for each in caps if each is not None), default=None)
    if in_flight is None or (rule.scope is Scope.WAVE and not closed):  # each wave begins to count at zero
        return most
    exposed = _failures_needed(rule, in_flight, segments) - 1 + in_flight
    return min(most, exposed * (segments if rule.scope is Scope.SEGMENT else 1))


def _stays_closed(rule: GuardrailRule, gate: GateRule | None, devices: int, segments: int) -> bool:
    """Whether the gate of a wave stays closed if all of its ``devices`` fail: by the guardrail, or by itself."""
    gate = gate or GateRule()
    if gate.success_rate:
        return True
    if rule.action is TripAction.QUARANTINE:  # the rest goes on
        return False
    if rule.method is Method.RATIO:
        return True
    allowed, threshold = alpha(rule, segments), float(rule.threshold)
    if rule.scope is Scope.SEGMENT:  # one of the segments has as many as this
        fewest = ceil(devices / max(1, segments))
        return gate.min_finished is None and is_evidence(fewest, fewest, threshold, allowed)
    judged = devices
    if gate.min_finished is not None:
        wanted = gate.min_finished
        judged = min(devices, wanted.of(devices) if isinstance(wanted, Share) else wanted)
    return is_evidence(judged, devices, threshold, allowed)


def _failures_needed(rule: GuardrailRule, in_flight: int, segments: int) -> int:
    """The least number of failed devices that trip the guardrail, if all have failed but those in flight.

    Those may have been sent to first, so that every prefix with a failed device has all of them.
    """
    if rule.method is not Method.SEQUENTIAL:
        return min_finished(rule)
    allowed, threshold = alpha(rule, segments), float(rule.threshold)

    def trips(failed: int) -> bool:
        return is_evidence(failed, failed - 1 + in_flight, threshold, allowed)

    high = 1
    while not trips(high):
        high *= 2
    return max(min_finished(rule), bisect_left(range(1, high + 1), True, key=trips) + 1)


def _longest_failure(policy: Policy) -> float:
    """Seconds until a silent device has failed for good."""
    attempts = policy.retry.max_attempts
    return min(policy.device_timeout, attempts * policy.longest_silence + (attempts - 1) * policy.retry.max_delay)
