"""Admission: decides from a policy and facts how many devices may be sent to now, and which gates limit that.

The claim, the check before each half-batch, the opening of a wave, *waiting* and *explain* all call :func:`admit`, so
they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy import gates, time_gates
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.queue import Queue, budget_of, quarantine, queue_of, wave_of
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.words import GateName

NO_LIMIT = 2**31 - 1
"""The number of commands where no gate limits it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The number of devices that may be sent to now, and the reasons.

    ``tokens``: maximum number of commands; ``fresh``: how many of them may be a device's first command.
    ``opens_interval``: a claim begins a new interval of the pace. ``look_again_in``: seconds until the answer may
    change (0: now; infinite: when the campaign's status changes; None: unknown). ``wave_finished``: all devices of the
    wave are terminal, so the next one may be opened. ``left``: the tokens left in the pace's interval.
    ``of_campaign``: the verdicts that apply to every command; ``of_queue``: those that apply to devices in the queue.
    """

    tokens: int
    fresh: int
    opens_interval: bool
    look_again_in: float | None
    wave_finished: bool
    left: gates.Tokens | None
    of_campaign: tuple[Verdict, ...]
    of_queue: tuple[Verdict, ...]
    queue: Queue | None = None

    @property
    def closed(self) -> Sequence[Verdict]:
        """The verdicts of closed gates, in the order in which gates are checked."""
        return [each for each in (*self.of_campaign, *self.of_queue) if not each.open]

    @property
    def sends(self) -> bool:
        """Whether any command of this campaign may be sent, also one that was claimed before."""
        return all(each.open for each in self.of_campaign)

    @property
    def braked(self) -> bool:
        """Whether a halt or a freeze stops the campaign, so that commands in a session's queue must not be sent."""
        return any(each.gate in {GateName.HALTED, GateName.FREEZE} and not each.open for each in self.of_campaign)


def admit(policy: Policy, facts: Facts) -> Admission:
    """Decide how many devices may be sent to now.

    Sending again uses a token, but no place in flight (the device already has one) and no place in the wave.
    """
    of_campaign = (
        gates.status(facts),
        gates.targeting(facts),
        gates.listener(facts, documents=policy.document is not None),
        *time_gates.stops(policy, facts),
    )
    if policy.document is not None:
        return _under_document(policy.document, facts, of_campaign)
    left = gates.tokens_of(
        gates.Pace(policy.rate, facts.tick, facts.steps), age=facts.interval_age, used=facts.interval_used
    )
    wave, in_flight = gates.wave(facts), gates.in_flight(policy, facts)
    sends = all(each.open for each in of_campaign)
    tokens = left.number if sends else 0
    fresh = min(each for each in (tokens, wave.room, in_flight.room) if each is not None)
    return Admission(
        tokens,
        fresh,
        opens_interval=sends and left.opens_interval,
        look_again_in=_look_again_in(facts, of_campaign, left, fresh),
        wave_finished=gates.finished_wave(facts),
        left=left,
        of_campaign=of_campaign,
        of_queue=(wave, in_flight, gates.pace_of(policy, facts, left)),
    )


def _under_document(document: PolicyDocument, facts: Facts, of_campaign: tuple[Verdict, ...]) -> Admission:
    """Decide by a policy document. Sending again is limited by no number."""
    sends = all(each.open for each in of_campaign)
    queue = queue_of(document, facts, facts.queue) if facts.queue is not None else None
    fresh = queue.fresh if sends and queue else 0
    look_again_in: float | None = None
    if not sends:
        look_again_in = _look_again_in(facts, of_campaign, None, 0)
    elif queue and not fresh and queue.opens_at is not None:
        look_again_in = max(0.0, (queue.opens_at - facts.now).total_seconds())
    return Admission(
        NO_LIMIT if sends else 0,
        fresh,
        opens_interval=queue is not None and queue.step is not None and queue.step.opens,
        look_again_in=look_again_in,
        wave_finished=gates.finished_wave(facts),
        left=None,
        of_campaign=of_campaign,
        of_queue=queue.limits if queue else (),
        queue=queue,
    )


def _look_again_in(facts: Facts, of_campaign: Sequence[Verdict], left: gates.Tokens | None, fresh: int) -> float | None:
    if left is not None and all(each.open for each in of_campaign):
        return left.more_in if not left.number else 0.0 if fresh else None
    runs = facts.status is CampaignStatus.RUNNING and facts.targeted is None
    pauses = facts.unreadable is not None and facts.in_own_database  # a worker does this immediately
    if not runs or pauses:
        return inf
    closed = [each for each in of_campaign if not each.open]
    if any(each.gate not in time_gates.OPEN_AT_A_TIME for each in closed):
        return None
    # What opens without a time, such as a halt that is lifted, wakes the workers.
    return max(inf if each.until is None else (each.until - facts.now).total_seconds() for each in closed)


def explain(admission: Admission, facts: Facts, device: DeviceFacts) -> list[Verdict]:
    """The verdict of every gate that applies to one device, in order. The device may be sent to now if all are open.

    If there is nothing to send to it, this is the only verdict. A device that waits for its own reason (lease, delay,
    refusal) is not in the queue, so the queue's gates do not apply to it meanwhile.
    """
    own = gates.own(facts, device)
    if own is not None and own.gate is GateName.STATUS:
        return [own]
    if own is not None and not own.open:
        return [*admission.of_campaign, own]
    if admission.left is None:
        return [*admission.of_campaign, *_of_queue(admission.queue, facts, device, own)]
    wave, in_flight, _ = admission.of_queue
    the_pace = _pace(admission.of_queue[-1], admission.left, facts, device)
    if own is not None:
        return [*admission.of_campaign, the_pace, own]
    queue = (_behind(wave, device.ahead_fresh), _behind(in_flight, device.ahead_fresh), the_pace)
    return [*admission.of_campaign, *queue]


def _of_queue(queue: Queue | None, facts: Facts, device: DeviceFacts, own: Verdict | None) -> list[Verdict]:
    """The verdicts of a policy document for one device. ``own``: it was claimed before and may be sent to again."""
    segment = device.segment
    if queue is None or segment is None or facts.queue is None:
        text = "the device is not placed yet"
        return [Verdict(GateName.TARGETING, 0, text), *([own] if own else [])]
    found = [queue.window_of(segment.time_zone)]
    if own is None:
        found += wave_of(facts.queue, later=segment.wave > facts.queue.number)
    if segment.quarantined:
        found.append(quarantine())
    if own is not None:
        return [*found, own]
    if (of_budgets := budget_of(queue.document, segment)) is not None:
        found.append(of_budgets)
    if not all(each.open for each in found):
        return [*found, *queue.limits]
    limits = list(queue.limits)
    if device.ahead_fresh >= segment.room:  # the last gate that limits the number names those before it
        last = max((number for number, each in enumerate(limits) if each.room is not None), default=len(limits) - 1)
        limits[last] = _in_its_turn(limits[last], device)
    return [*found, *limits]


def _in_its_turn(verdict: Verdict, device: DeviceFacts) -> Verdict:
    """The verdict for a device that is not among the next ones of its segment."""
    ahead = device.ahead_fresh
    text = f"{verdict.text}; {ahead:,}{'' if device.ahead_counted else ' or more'} devices of its segment go before it"
    return replace(verdict, room=0, text=text, detail={**verdict.detail, "ahead": ahead})


def _pace(verdict: Verdict, left: gates.Tokens, facts: Facts, device: DeviceFacts) -> Verdict:
    """The pace's verdict for one device. ``until`` assumes that every device before it is sent to without delay."""
    if not device.ahead_counted:
        return replace(_behind(verdict, device.ahead, at_least=True), until=None)
    if device.ahead < left.number:
        return verdict
    return replace(_behind(verdict, device.ahead), until=facts.after(left.turn_in(device.ahead)))


def _behind(verdict: Verdict, ahead: int, *, at_least: bool = False) -> Verdict:
    """The verdict for one device with ``ahead`` other devices before it in the queue; ``at_least``: or more."""
    if verdict.room is None or (not at_least and (ahead < verdict.room or not ahead)):
        return verdict
    go = "or more devices go" if at_least else "device goes" if ahead == 1 else "devices go"
    text = f"{verdict.text}; {ahead:,} {go} before it"
    if verdict.room:
        text += f", and {verdict.room:,} may go now"
    return replace(verdict, room=0, text=text, detail={**verdict.detail, "ahead": ahead})


def may_go_at(checks: Sequence[Verdict], now: datetime) -> datetime | None:
    """Earliest time at which the last of the closed gates opens. ``now``: none is closed. None: unknown."""
    opens = [each.until for each in checks if not each.open]
    known = [each for each in opens if each is not None]
    return max([now, *known]) if len(known) == len(opens) else None
