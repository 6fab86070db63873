"""The verdict: one level and one sentence that say whether a person has to act. The first rule that holds wins.

Rules that say *stop* come first, so that no *watch* hides one. `docs/reference/verdict.md` has an entry for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rollwave.domain.campaign import CampaignStatus, paused_by_operator
from rollwave.domain.overview import resting
from rollwave.domain.overview.facts import OverviewFacts
from rollwave.domain.overview.guardrails import GuardrailStanding
from rollwave.domain.overview.texts import after_colon, are, duration, many, percent
from rollwave.domain.policy.words import TripAction, WaveState

SILENT_SECONDS = 600.0
"""Seconds without a report, with devices in progress, after which the verdict says so."""

HALF_USED, QUARTER_USED = 0.5, 0.25
"""Shares of a guardrail: over the first it is near to tripping; over the second it is if the devices in progress could
trip it."""


class Level(StrEnum):
    """Whether a person has to act."""

    OK = "ok"
    """Nothing to do."""
    WATCH = "watch"
    """Look at it soon: it may have to be stopped, or waits for a person."""
    STOP = "stop"
    """It was stopped for a reason, or must not go on as it is."""


class RuleName(StrEnum):
    """The rules of the verdict, in their order."""

    TRIPPED = "tripped"
    GATE_FAILED = "gate_failed"
    HALTED = "halted"
    CANNOT_SEND = "cannot_send"
    HELD = "held"
    FROZEN = "frozen"
    SILENT = "silent"
    QUARANTINED = "quarantined"
    OVER_LIMIT = "over_limit"
    NEAR_LIMIT = "near_limit"
    APPROVAL = "approval"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict on a campaign: ``text`` is a sentence without its full stop. ``rule``: the one that holds."""

    level: Level
    rule: RuleName
    text: str

    def to_json(self) -> dict[str, str]:
        """The verdict as ``headline`` in answers of the API."""
        return {"level": self.level.value, "rule": self.rule.value, "text": self.text}


def headline(facts: OverviewFacts) -> Headline:
    """The verdict on a campaign: the first rule that holds."""
    for rule in RULES:
        if (text := rule.holds(facts)) is not None:
            return Headline(rule.level, rule.name, text)
    return Headline(Level.OK, RuleName.NONE, resting.text(facts))


def _tripped(facts: OverviewFacts) -> str | None:
    """A guardrail has aborted or paused the campaign."""
    stopped = {CampaignStatus.ABORTED: TripAction.ABORT, CampaignStatus.PAUSED: TripAction.PAUSE}
    action = stopped.get(facts.status)
    found = next((each for each in facts.guardrails if each.tripped and each.action == action), None)
    if found is None:
        return None
    done = "aborted" if action is TripAction.ABORT else "paused"
    return f"Guardrail {_named(found)} tripped: {found.trip_text}; the campaign is {done}{_since_trip(facts, found)}"


def _since_trip(facts: OverviewFacts, found: GuardrailStanding) -> str:
    """What became of the campaign after the trip, since devices in progress still finish. Empty: nothing changed."""
    devices = facts.devices
    if (devices.failed, devices.finished) == found.trip_counts or found.group:
        return ""
    when = "in the end" if facts.ended and not devices.in_progress else "by now"
    return f"; {when} {devices.failed:,} of {devices.finished:,} failed"


def _gate_failed(facts: OverviewFacts) -> str | None:
    """The gate of the present wave has failed and stopped the campaign."""
    wave = facts.present_wave
    if wave is None or wave.state != WaveState.FAILED or facts.status is CampaignStatus.COMPLETED:
        return None
    done = {CampaignStatus.ABORTED: "aborted", CampaignStatus.PAUSED: "paused"}.get(facts.status)
    return f"The gate of wave {wave.name} failed{after_colon(facts.reason)}" + (
        f"; the campaign is {done}" if done else ""
    )


def _halted(facts: OverviewFacts) -> str | None:
    """Sending of the tenant is halted."""
    halt = next((each for each in facts.stopped_by if each.is_halt), None)
    if halt is None or not _sends(facts):
        return None
    return f"All sending is halted{after_colon(halt.reason)}{_carry_on(facts)}"


def _cannot_send(facts: OverviewFacts) -> str | None:
    """The engine cannot send: no reports arrive, it is another database, or a fault holds the campaign."""
    if facts.ended or (facts.status is CampaignStatus.CREATED and facts.fault is None):
        return None
    if not facts.in_own_database:
        return "This database is a copy or was moved: nothing is sent until an operator says which"
    if facts.fault is not None:
        return f"The campaign cannot go on: {facts.fault}"
    if not facts.heard and (facts.status is CampaignStatus.RUNNING or facts.devices.in_progress):
        return "No listener is subscribed: no report arrives and nothing is sent. Check the broker and the workers"
    return None


def _held(facts: OverviewFacts) -> str | None:
    """The engine has paused the campaign, since a rule cannot be read or an operator must decide."""
    if facts.status is not CampaignStatus.PAUSED or not facts.reason or paused_by_operator(facts.reason):
        return None
    return f"Paused by the engine: {facts.reason}"


def _frozen(facts: OverviewFacts) -> str | None:
    """A freeze of the tenant stops the campaign."""
    freeze = next((each for each in facts.stopped_by if not each.is_halt), None)
    if freeze is None or not _sends(facts):
        return None
    return f"Stopped by the {freeze.text}{_carry_on(facts)}"


def _silent(facts: OverviewFacts) -> str | None:
    """No device has reported for ten minutes, though some are in progress."""
    if facts.ended or not facts.devices.in_progress or (facts.silent_for or 0) < SILENT_SECONDS:
        return None
    in_progress = facts.devices.in_progress
    silent_for = duration(facts.silent_for or 0)
    return f"No report for {silent_for}: {many(in_progress, 'device')} {are(in_progress)} in progress"


def _quarantined(facts: OverviewFacts) -> str | None:
    """A guardrail has put segments under quarantine. The rest goes on."""
    if facts.ended:
        return None
    tripped = [each for each in facts.guardrails if each.tripped and each.action == TripAction.QUARANTINE]
    segments = [each for each in facts.segments if each.quarantined]
    if not tripped and not segments:
        return None
    if tripped:
        return f"Guardrail {_named(tripped[0])} tripped: {tripped[0].trip_text}; under quarantine, the rest goes on"
    worst = segments[0]
    return f"{_capital(worst.subject)} are under quarantine: {worst.standing_text}; the rest goes on"


def _over_limit(facts: OverviewFacts) -> str | None:
    """Failures prove that a group of devices is over a threshold, though no guardrail has acted."""
    if facts.ended:
        return None
    if (found := next((each for each in facts.guardrails if each.over), None)) is not None:
        return f"{_capital(found.text)}"
    threshold = min((each.threshold for each in facts.guardrails), default=None)
    if threshold is None:
        return None
    worst = max(facts.segments, key=lambda each: each.limit, default=None)
    if worst is None or worst.limit <= threshold:
        return None
    return f"{_capital(worst.subject)}: {worst.standing_text}, over {percent(threshold)}"


def _near(facts: OverviewFacts) -> str | None:
    """A guardrail is more than half used, or the devices in progress could trip it."""
    found = facts.closest
    if facts.ended or facts.status is CampaignStatus.CREATED or found is None or found.tripped or not found.failed:
        return None
    text = _capital(f"{found.of_group}: {found.standing_text}" if found.group else found.standing_text)
    if found.used > HALF_USED:
        return text
    in_progress, left = facts.devices.in_progress, found.failures_left
    if found.used > QUARTER_USED and left is not None and in_progress >= left:
        return f"{text}, and {in_progress:,} {are(in_progress)} in progress"
    return None


def _approval(facts: OverviewFacts) -> str | None:
    """The present wave waits for an approval."""
    wave = facts.present_wave
    if facts.ended or wave is None or wave.state != WaveState.AWAITING_APPROVAL:
        return None
    return f"Wave {wave.name} waits for an approval"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the verdict. ``holds`` returns its text; None: it does not hold."""

    name: RuleName
    level: Level
    holds: Callable[[OverviewFacts], str | None]


RULES: Sequence[Rule] = (
    Rule(RuleName.TRIPPED, Level.STOP, _tripped),
    Rule(RuleName.GATE_FAILED, Level.STOP, _gate_failed),
    Rule(RuleName.HALTED, Level.STOP, _halted),
    Rule(RuleName.CANNOT_SEND, Level.STOP, _cannot_send),
    Rule(RuleName.HELD, Level.STOP, _held),
    Rule(RuleName.FROZEN, Level.WATCH, _frozen),
    Rule(RuleName.SILENT, Level.WATCH, _silent),
    Rule(RuleName.QUARANTINED, Level.WATCH, _quarantined),
    Rule(RuleName.OVER_LIMIT, Level.WATCH, _over_limit),
    Rule(RuleName.NEAR_LIMIT, Level.WATCH, _near),
    Rule(RuleName.APPROVAL, Level.WATCH, _approval),
)
"""The rules in their order. If none holds, the level is ok."""


def _sends(facts: OverviewFacts) -> bool:
    """Whether a brake makes a difference: the campaign runs, or is paused in the midst of its way."""
    return facts.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}


def _carry_on(facts: OverviewFacts) -> str:
    in_progress = facts.devices.in_progress
    if not in_progress:
        return ""
    return f"; {in_progress:,} in progress carr{'ies' if in_progress == 1 else 'y'} on"


def _named(guardrail: GuardrailStanding) -> str:
    return f"{guardrail.name}, {guardrail.group}," if guardrail.group else guardrail.name


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
