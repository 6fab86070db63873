"""Waves of a policy document: when a wave is finished, and when its gate opens the next one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollwave.domain.policy.document.model import GateRule
from rollwave.domain.policy.document.units import Share
from rollwave.domain.policy.words import WaveState

CONDITIONS_HOLD = frozenset({WaveState.SOAKING, WaveState.AWAITING_APPROVAL, WaveState.PASSED, WaveState.FAILED})
"""The states in which enough devices of the wave have finished, so that guardrails are judged for any number."""


@dataclass(frozen=True, slots=True)
class WaveCounts:
    """The devices of a wave by state.

    ``waiting``: never sent to. ``in_flight``: sent to and not terminal. ``skipped``: after they were placed in the
    wave. ``quarantined``: how many of those that wait or are in flight are in segments under quarantine.
    """

    waiting: int = 0
    in_flight: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    quarantined: int = 0

    @property
    def size(self) -> int:
        """All devices of the wave."""
        return self.waiting + self.in_flight + self.succeeded + self.failed + self.skipped

    @property
    def sent(self) -> int:
        """The devices that were sent to."""
        return self.in_flight + self.succeeded + self.failed

    @property
    def ended(self) -> int:
        """The devices that have succeeded or failed."""
        return self.succeeded + self.failed

    @property
    def finished(self) -> bool:
        """Whether each device is terminal, skipped or quarantined."""
        return self.waiting + self.in_flight <= self.quarantined


@dataclass(frozen=True, slots=True)
class Soak:
    """A soak began at ``since``, when ``failed`` of the devices sent so far had failed."""

    since: datetime
    failed: int


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What a wave's gate says at one moment.

    ``opens``: the next wave may be sent to. ``soak``: the soak that runs or has ended; None: its conditions do not
    hold. ``until``: when the soak ends. ``lacking``: what the gate waits for, as a phrase; of a failed one: why it
    failed.
    """

    state: WaveState
    soak: Soak | None = None
    until: datetime | None = None
    lacking: str = ""

    @property
    def opens(self) -> bool:
        """Whether the next wave may be sent to."""
        return self.state is WaveState.PASSED


def judge_gate(
    rule: GateRule | None,
    counts: WaveCounts,
    soak: Soak | None,
    *,
    failed_so_far: int,
    now: datetime,
    promoted: bool = False,
    over: str = "",
) -> GateDecision:
    """Judge the gate of the present wave. Guardrails that can act are judged before, and act by themselves.

    Args:
        rule: None: the gate opens when the wave is finished. A wave without devices needs nothing else.
        soak: the one that runs, as the last decision had it.
        failed_so_far: failed devices of this wave and those before it.
        now: by the database's clock.
        promoted: a person has opened the gate.
        over: the guardrails that are over their thresholds and cannot act yet, as a phrase. Empty: there are none.
    """
    rule = rule or GateRule()
    if promoted or not counts.size:  # earlier waves have taken all of its devices
        return GateDecision(WaveState.PASSED, soak)
    needed = _needed(rule.min_finished, counts.size)
    if not counts.finished and counts.ended + counts.skipped < needed:
        return GateDecision(WaveState.OPEN, lacking=f"{counts.ended:,} of {needed:,} devices have finished")
    if shortfall := "; ".join(each for each in (over, _shortfall(rule, counts)) if each):
        return GateDecision(WaveState.FAILED if counts.finished else WaveState.OPEN, lacking=shortfall)
    if rule.soak:
        if soak is None or failed_so_far > soak.failed:
            soak = Soak(now, failed_so_far)
        elif failed_so_far < soak.failed:  # other SQL gave failed devices another attempt, and they may fail again
            soak = Soak(soak.since, failed_so_far)
        until = _after(soak.since, rule.soak)
        if now < until:
            return GateDecision(WaveState.SOAKING, soak, until, f"the soak ends at {until:%Y-%m-%d %H:%M:%S}Z")
    if rule.approval:
        return GateDecision(WaveState.AWAITING_APPROVAL, soak, lacking="a person with the role approver opens it")
    return GateDecision(WaveState.PASSED, soak)


def _needed(min_finished: int | Share | None, size: int) -> int:
    """The devices that have to finish before the gate is judged: by default all of them."""
    if min_finished is None:
        return size
    return min_finished.of(size) if isinstance(min_finished, Share) else min_finished


def _shortfall(rule: GateRule, counts: WaveCounts) -> str:
    """Why the success rate does not hold. Empty: it does."""
    if rule.success_rate is None:
        return ""
    if not counts.ended:
        return f"no device of the wave has finished, and {float(rule.success_rate):.1%} of them have to succeed"
    if counts.succeeded >= rule.success_rate.fraction * counts.ended:
        return ""
    share = counts.succeeded / counts.ended
    return (
        f"{counts.succeeded:,} of {counts.ended:,} finished devices succeeded ({share:.1%}, "
        f"under {float(rule.success_rate):.1%})"
    )


def _after(moment: datetime, seconds: float) -> datetime:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=moment.tzinfo)
