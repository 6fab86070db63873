"""What Start would do now: whether devices are sent to at once, or when, by the gates that a claim asks.

The preview of a new campaign and the page of one that was not started yet show it beside the button.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rollwave.domain.overview.texts import duration, many
from rollwave.domain.policy import gates, time_gates
from rollwave.domain.policy.document.model import PaceRule
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.pace import ramped
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.words import GateName

_MAX_STEPS = 50
"""Maximum number of times that one gate opens and another closes before the answer is given up."""


@dataclass(frozen=True, slots=True)
class AtStart:
    """``text``: what Start does, in sentences. ``at_once``: devices are sent to immediately.

    ``sends_at``: when devices are sent to first, if that is later; None: at once, or nobody can say.
    """

    text: str
    at_once: bool
    sends_at: datetime | None


def at_start(policy: Policy, facts: Facts, first: int | None) -> AtStart:
    """What starting the campaign does at the time of the facts.

    Devices with a time zone of their own may wait for their own windows, which is said.

    Args:
        facts: those of the tenant and the listeners count, not the campaign's status.
        first: devices of the first wave; None: not counted yet.
    """
    now, at = facts.now, facts.now
    reason: Verdict | None = None
    for _ in range(_MAX_STEPS):
        closed = [each for each in _gates(policy, replace(facts, now=at)) if not each.open]
        if not closed:
            break
        reason = reason or closed[0]
        lasting = next((each for each in closed if each.until is None), None)
        if lasting is not None:
            return AtStart(f"Nothing is sent: {lasting.text}.", at_once=False, sends_at=None)
        at = max(each.until for each in closed if each.until is not None)
    if reason is not None:
        wait = duration((at - now).total_seconds())
        why = "" if reason.gate is GateName.WINDOW else f": {reason.text}"  # which would repeat the time
        text = f"Nothing is sent before {clock(at, now)}, in {wait}{why}.{_own_zones(policy)}"
        return AtStart(text, at_once=False, sends_at=at)
    if first == 0:
        return AtStart("Nothing is sent: the first wave has no devices.", at_once=False, sends_at=None)
    text = f"{_open_until(policy, now)}{_first(policy, first, facts.tick)}{_own_zones(policy)}"
    return AtStart(text, at_once=True, sends_at=None)


def _gates(policy: Policy, facts: Facts) -> Sequence[Verdict]:
    """The gates that do not depend on the campaign's state."""
    window = time_gates.window(policy.document, None, facts.now)
    listener = gates.listener(facts, documents=policy.document is not None)
    return [*time_gates.stops(policy, facts), listener, *([window] if window is not None else [])]


def clock(at: datetime, now: datetime) -> str:
    """A time in UTC, with its date if that is not today."""
    there = at.astimezone(UTC)
    return f"{there:%H:%M} UTC" if there.date() == now.astimezone(UTC).date() else f"{there:%Y-%m-%d %H:%M} UTC"


def _open_until(policy: Policy, now: datetime) -> str:
    until = time_gates.window_closes(policy.document, now)
    return "" if until is None else f"The window is open until {clock(until, now)}. "


def _first(policy: Policy, first: int | None, tick: float) -> str:
    rules = policy.document.waves if policy.document is not None else ()
    caps = [first, policy.max_in_flight, rules[0].max_in_flight if rules else None]
    number = min((each for each in caps if each is not None), default=None)
    rate = _rate(policy, tick)
    who = "Devices are" if number is None else f"The first {many(number, 'device')} {'is' if number == 1 else 'are'}"
    at_most = "" if rate is None else f", at most {rate:,.6g} a minute"
    return f"{who} sent to at once{at_most}."


def _rate(policy: Policy, tick: float) -> float | None:
    """Devices a minute that are sent to at most when the campaign begins."""
    if policy.document is None:
        return policy.rate * 60 / tick
    pace = policy.document.pace or PaceRule()
    return None if pace.per_minute is None else ramped(pace.per_minute, pace.ramp, 0)


def _own_zones(policy: Policy) -> str:
    schedule = policy.document.schedule if policy.document is not None else None
    if schedule is None or not any(each.differs_by_device for each in schedule.windows):
        return ""
    return " Devices with a time zone of their own wait for the window there."
