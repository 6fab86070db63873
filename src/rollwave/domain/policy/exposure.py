"""How many devices are exposed at most before a guardrail can act: what a dry run tells an operator."""

from __future__ import annotations

from math import ceil

from rollwave.domain.policy.document.model import GuardrailRule, Method, PaceRule, Scope
from rollwave.domain.policy.guardrail import alpha, min_finished, rules_of
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.sequential import trips_after
from rollwave.domain.retry import Reason


def exposed_devices(policy: Policy, *, first_wave: int, max_in_flight: int | None, segments: int) -> int | None:
    """The most devices that are sent to before a guardrail can act, if every one of them fails. None: none does.

    Guardrails that count only some classes or codes of failures may see none of them, and are left out.

    A guardrail acts when enough devices have failed for good, which takes a silent device all of its attempts. Until
    then, the first wave, the cap on devices in flight and the pace bound the number. Of guardrails of segments, each
    segment may expose as many.

    Args:
        first_wave: number of devices of the first wave.
        max_in_flight: the cap of that wave or of the campaign, whichever is lower.
    """
    document = policy.document
    rules = rules_of(document) if document is not None else ()
    exposed = [
        _exposed(each, policy, max_in_flight, segments) * (segments if each.scope is Scope.SEGMENT else 1)
        for each in rules
        if each.codes is None and set(each.count) == set(Reason)
    ]
    return min([first_wave, *exposed]) if exposed else None


def _exposed(rule: GuardrailRule, policy: Policy, max_in_flight: int | None, segments: int) -> int:
    needed = _failures_needed(rule, segments)
    bounds: list[int] = []
    if max_in_flight is not None:
        bounds.append(needed - 1 + max_in_flight)
    pace = (policy.document.pace if policy.document else None) or PaceRule()
    if pace.per_minute is not None:
        bounds.append(needed + ceil(pace.per_minute / 60 * _longest_failure(policy)))
    return min(bounds, default=2**31 - 1)


def _failures_needed(rule: GuardrailRule, segments: int) -> int:
    """The least number of devices that trip the guardrail if all of them fail."""
    if rule.method is not Method.SEQUENTIAL:
        return min_finished(rule)
    return max(min_finished(rule), trips_after((), float(rule.threshold), alpha(rule, segments)))


def _longest_failure(policy: Policy) -> float:
    """Seconds until a silent device has failed for good."""
    attempts = policy.retry.max_attempts
    return min(policy.device_timeout, attempts * policy.longest_silence + (attempts - 1) * policy.retry.max_delay)
