"""The gates: every rule that may keep a device from being sent to. Each answers with a verdict.

`docs/reference/gates.md` has an entry for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from rollwave.domain import broker_refusal
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.domain.ids import UNSENDABLE
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.words import GateName

SMALLEST_STEP_DEVICES = 50
"""Minimum number of devices in a step. Fewer devices at once are no burst."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of one gate.

    ``room``: number of devices that may be sent to now (None: this gate sets no limit; 0: it is closed). ``until``:
    when it opens (None: unknown). ``detail``: the numbers it is based on, as JSON values. ``text``: the answer as a
    sentence.
    """

    gate: GateName
    room: int | None
    text: str
    until: datetime | None = None
    detail: Mapping[str, object] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether this gate allows at least one device to be sent to."""
        return self.room is None or self.room > 0


_NOT_RUNNING = {
    CampaignStatus.CREATED: "the campaign has not been started",
    CampaignStatus.PAUSED: "the campaign is paused",
    CampaignStatus.ABORTED: "the campaign is aborted",
    CampaignStatus.COMPLETED: "the campaign is completed",
}


def status(facts: Facts) -> Verdict:
    """Open if the campaign is running, belongs to this database, and has readable rules."""
    detail: dict[str, object] = {"status": facts.status}
    if facts.status is not CampaignStatus.RUNNING:
        text = _NOT_RUNNING[facts.status]
        if facts.reason:
            text, detail["reason"] = f"{text}: {facts.reason}", facts.reason
        return Verdict(GateName.STATUS, 0, text, detail=detail)
    if not facts.in_own_database:
        text = "this database is a copy or was moved, and nothing is sent until an operator says which"
        return Verdict(GateName.STATUS, 0, text, detail=detail)
    if facts.unreadable:
        text = f"the campaign's rules cannot be read, so a worker pauses it: {facts.unreadable}"
        return Verdict(GateName.STATUS, 0, text, detail=detail | {"reason": facts.unreadable})
    return Verdict(GateName.STATUS, None, "the campaign is running", detail=detail)


def targeting(facts: Facts) -> Verdict:
    """Open if every device of the campaign is targeted and counted."""
    if facts.targeted is not None:
        text = f"{facts.targeted:,} devices are targeted so far, and nothing is sent before all are"
        detail: dict[str, object] = {"targeted_devices": facts.targeted}
        if facts.targeting_fault:
            text, detail["reason"] = f"{text}; it cannot go on: {facts.targeting_fault}", facts.targeting_fault
        return Verdict(GateName.TARGETING, 0, text, detail=detail)
    if not facts.counted:
        return Verdict(GateName.TARGETING, 0, "the campaign's devices are being counted")
    return Verdict(GateName.TARGETING, None, "every device is targeted")


def listener(facts: Facts, *, documents: bool) -> Verdict:
    """Open if a listener is subscribed; of a campaign under a policy document (``documents``), one that knows these."""
    if facts.heard:
        return Verdict(GateName.LISTENER, None, "a listener is subscribed")
    if documents:
        text = "no listener is subscribed, or one of an earlier version, which would judge reports by the flat columns"
        return Verdict(GateName.LISTENER, 0, text)
    return Verdict(GateName.LISTENER, 0, "no listener is subscribed, so reports could not be received")


def wave(facts: Facts) -> Verdict:
    """Open if the present wave has devices that were not sent to yet."""
    detail = {"wave": facts.wave.number, "up_to": facts.wave.up_to, "sent": facts.sent}
    if facts.wave.up_to is None:
        return Verdict(GateName.WAVE, None, "the wave includes all remaining devices", detail=detail)
    room = max(0, facts.wave.up_to - facts.sent)
    name = f"wave {facts.wave.number + 1}"
    text = f"{name} has room for {room:,} more devices"
    if not room:
        text = f"{name} is full; the next one opens when its devices have ended and the guardrail holds"
    return Verdict(GateName.WAVE, room, text, detail=detail)


def in_flight(policy: Policy, facts: Facts) -> Verdict:
    """Open if fewer devices are in flight than the cap."""
    cap = policy.max_in_flight
    if cap is None:
        return Verdict(GateName.IN_FLIGHT, None, "there is no cap on devices in flight")
    return Verdict(
        GateName.IN_FLIGHT,
        max(0, cap - facts.in_flight),
        f"{facts.in_flight:,} {'device is' if facts.in_flight == 1 else 'devices are'} in flight, of {cap:,} at most",
        detail={"in_flight": facts.in_flight, "max_in_flight": cap},
    )


def pace_of(policy: Policy, facts: Facts, left: Tokens) -> Verdict:
    """Open if the interval has tokens ``left``."""
    used = 0 if left.opens_interval else facts.interval_used
    text = f"at most {policy.rate:,} devices in {facts.tick:g} s"
    until = None if left.number else facts.after(left.more_in)
    if until is not None:
        text += f"; the next at {until.astimezone(UTC):%H:%M:%S} UTC"
    detail = {"rate": policy.rate, "interval_seconds": facts.tick, "used": used}
    return Verdict(GateName.PACE, left.number, text, until, detail)


def finished_wave(facts: Facts) -> bool:
    """Whether every device of the wave is terminal, so that the guardrail may be judged and the next wave opened.

    A wave for which the campaign has too few devices is finished when no device is left.
    """
    if facts.remaining is None:
        return False
    up_to = facts.wave.up_to
    full = not facts.remaining.waiting or (up_to is not None and facts.sent >= up_to)
    return full and not facts.remaining.unfinished


def own(facts: Facts, device: DeviceFacts) -> Verdict | None:
    """The verdict of the device's own gate; None: the device waits in the queue only.

    A closed :attr:`GateName.STATUS` means that there is nothing to send to it.
    """
    if device.fresh and device.addressable:
        return None
    if not device.addressable and device.status not in TERMINAL:
        return Verdict(GateName.STATUS, 0, UNSENDABLE, detail={"status": device.status})
    if not device.to_be_sent_again:
        return _nothing_to_send(device)
    held = device.due_in is not None and device.due_in > 0
    until = facts.after(device.due_in) if held and device.due_in is not None else None
    room = 0 if held else None
    if not device.unacknowledged:
        how = "was set back to PENDING" if device.status is ExecutionStatus.PENDING else "has failed"
        text = f"attempt {device.attempt} {how}, and the next one follows after a delay"
        return Verdict(GateName.BACKOFF, room, text, until, {"attempt": device.attempt})
    if device.refused_for is not None:
        detail = {"refused_for": device.refused_for, "attempt": device.attempt}
        return Verdict(GateName.REFUSED, room, broker_refusal.TEXT[device.refused_for], until, detail)
    text = "a worker is sending to it" if held else "the worker that was sending to it has not finished"
    return Verdict(GateName.LEASE, room, text, until, {"attempt": device.attempt})


def not_looked_at(devices: int, lease: Verdict | None) -> Verdict:
    """The verdict for claimed devices that were not read because there are too many. ``lease``: that of read ones."""
    text = f"not looked at: {devices:,} of the claimed devices"
    if lease is None:
        return Verdict(GateName.LEASE, 0, text, detail={"not_looked_at": devices})
    return replace(lease, text=f"{lease.text}; {text}", detail={**lease.detail, "not_looked_at": devices})


def _nothing_to_send(device: DeviceFacts) -> Verdict:
    detail: dict[str, object] = {"status": device.status, "attempt": device.attempt}
    if device.error:
        detail["error"] = device.error
    if device.status in TERMINAL:
        text = _ENDED[device.status] + (f": {device.error}" if device.error else "")
    elif device.finished:
        text = "it has ended, and a host has overwritten its status"
    elif device.out_of_time and device.failed_attempt == device.attempt:
        text = "its device timeout is over, so it gets no other attempt"
    else:
        text = "the broker has taken its command, and it has not ended yet"
    return Verdict(GateName.STATUS, 0, text, detail=detail)


_ENDED = {
    ExecutionStatus.SUCCESS: "it runs the firmware",
    ExecutionStatus.FAILED: "it failed",
    ExecutionStatus.SKIPPED: "it was skipped",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """At most ``rate`` devices in an interval of ``interval`` seconds.

    The interval has at most ``steps`` parts, each with its share of the rate; 1: all devices at once.
    """

    rate: int
    interval: float
    steps: int = 1

    @property
    def parts(self) -> int:
        """The number of steps for this rate."""
        return max(1, min(self.steps, self.rate // SMALLEST_STEP_DEVICES))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens left in an interval of ``pace`` that began ``age`` seconds ago, after ``used`` devices were claimed.

    ``number``: number of commands that may be sent now. A first command and a repeated one use one token each.
    ``opens_interval``: a claim begins a new interval.
    """

    pace: Pace
    age: float
    used: int
    number: int
    opens_interval: bool

    @property
    def more_in(self) -> float:
        """Seconds until there are more tokens; 0: there are some now."""
        return self.turn_in(0)

    def turn_in(self, ahead: int) -> float:
        """Seconds until a device with ``ahead`` others before it may be sent to, if all of these go without delay."""
        if ahead < self.number:
            return 0.0
        intervals, taken = divmod(min(self.used, self.pace.rate) + ahead, self.pace.rate)
        steps = taken * self.pace.parts // self.pace.rate
        return (intervals + steps / self.pace.parts) * self.pace.interval - self.age


def tokens_of(pace: Pace, *, age: float | None, used: int) -> Tokens:
    """The tokens left if ``used`` were taken in the interval that began ``age`` seconds ago (None: none has begun).

    The interval is one tick of database time, shared by every worker. The next one begins with the first claim at
    least one tick after this one began.
    """
    # If the interval begins well in the future, the database's clock was set back since.
    opens = age is None or age >= pace.interval or age < -pace.interval
    age, used = (0.0, 0) if opens or age is None else (age, used)
    step = min(pace.parts, int(max(0.0, age) * pace.parts / pace.interval) + 1)
    upto = -(-pace.rate * step // pace.parts)  # devices allowed in the steps so far, rounded up
    return Tokens(pace, age, used, max(0, upto - used), opens)
