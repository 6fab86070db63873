"""Admission: from a policy and facts to what may go now, and why not more.

The claim, the look before each half batch, the opening of a wave, *waiting* and *explain* all ask :func:`admit`, so
that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy import gates
from rollwave.domain.policy.document import Policy
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.gates import GateName, Verdict


@dataclass(frozen=True, slots=True)
class Admission:
    """What may go now.

    ``tokens`` commands of any kind, of which ``fresh`` may be a device's first. ``opens_interval``: claiming begins a
    new interval of the pace. ``look_again_in`` is the seconds until it is worth while to ask again: 0 now, infinite
    once somebody moves the campaign, None where nothing tells. ``wave_finished``: the gate behind the wave may be
    judged. ``left`` is what the pace has left. ``of_campaign`` are the verdicts on every command, ``of_queue`` those on
    devices that wait for their turn.
    """

    tokens: int
    fresh: int
    opens_interval: bool
    look_again_in: float | None
    wave_finished: bool
    left: gates.Tokens
    of_campaign: tuple[Verdict, ...]
    of_queue: tuple[Verdict, ...]

    @property
    def closed(self) -> Sequence[Verdict]:
        """The gates that let nothing through, in the order in which they are asked."""
        return [each for each in (*self.of_campaign, *self.of_queue) if not each.open]

    @property
    def sends(self) -> bool:
        """Whether commands of this campaign may go out at all: also those that were claimed before."""
        return all(each.open for each in self.of_campaign)


def admit(policy: Policy, facts: Facts) -> Admission:
    """Decide what may go now.

    Sending again takes a token, but neither a place in flight (the device holds one) nor a place in the wave.
    """
    of_campaign = gates.status(facts), gates.targeting(facts), gates.listener(facts)
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


def _look_again_in(facts: Facts, of_campaign: Sequence[Verdict], left: gates.Tokens, fresh: int) -> float | None:
    if all(each.open for each in of_campaign):
        return left.more_in if not left.number else 0.0 if fresh else None
    runs = facts.status is CampaignStatus.RUNNING and facts.targeted is None
    pauses = facts.unreadable is not None and facts.in_own_database  # a worker does so at once
    return inf if not runs or pauses else None


def explain(admission: Admission, facts: Facts, device: DeviceFacts) -> list[Verdict]:
    """Every gate that applies to one device, in the order in which they are asked. It may go now if all are open.

    Where nothing is to be sent to it, that is the one verdict. What holds a device for a reason of its own
    takes it out of the queue, so the queue's gates are asked of it once that is over.
    """
    own = gates.own(facts, device)
    if own is not None and own.gate is GateName.STATUS:
        return [own]
    if own is not None and not own.open:
        return [*admission.of_campaign, own]
    wave, in_flight, _ = admission.of_queue
    the_pace = _pace(admission, facts, device)
    if own is not None:
        return [*admission.of_campaign, the_pace, own]
    queue = (_behind(wave, device.ahead_fresh), _behind(in_flight, device.ahead_fresh), the_pace)
    return [*admission.of_campaign, *queue]


def _pace(admission: Admission, facts: Facts, device: DeviceFacts) -> Verdict:
    """The pace's verdict on one device: it opens when those before it have gone, if each goes as soon as it may."""
    verdict = admission.of_queue[-1]
    if not device.ahead_counted:
        return replace(_behind(verdict, device.ahead, at_least=True), until=None)
    if device.ahead < admission.left.number:
        return verdict
    return replace(_behind(verdict, device.ahead), until=facts.after(admission.left.turn_in(device.ahead)))


def _behind(verdict: Verdict, ahead: int, *, at_least: bool = False) -> Verdict:
    """The verdict on one device, before which so many others stand in the queue."""
    if verdict.room is None or (not at_least and (ahead < verdict.room or not ahead)):
        return verdict
    go = "or more devices go" if at_least else "device goes" if ahead == 1 else "devices go"
    text = f"{verdict.text}; {ahead:,} {go} before it"
    if verdict.room:
        text += f", and {verdict.room:,} may go now"
    return replace(verdict, room=0, text=text, detail={**verdict.detail, "ahead": ahead})


def may_go_at(checks: Sequence[Verdict], now: datetime) -> datetime | None:
    """When the last of the closed gates opens, at the earliest: ``now`` where none is, None where nothing tells."""
    opens = [each.until for each in checks if not each.open]
    known = [each for each in opens if each is not None]
    return max([now, *known]) if len(known) == len(opens) else None


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many ``devices`` wait for the gate of this verdict."""

    verdict: Verdict
    devices: int


@dataclass(frozen=True, slots=True)
class DueAgain:
    """Devices that were claimed before and are due again, which go before those never sent to.

    ``devices`` in all, of which ``pending`` are PENDING. Of these, ``pending_now`` may go now, and ``before_pending``
    devices go before the first.
    """

    devices: int = 0
    pending: int = 0
    pending_now: int = 0
    before_pending: int = 0


def count_waiting(
    admission: Admission, facts: Facts, *, pending: int, held: Mapping[GateName, Waiting], due: DueAgain = DueAgain()
) -> list[Waiting]:
    """Each of the ``pending`` devices under the first gate that is closed to it; those without any under the pace.

    ``held`` are those of them that wait for a reason of their own.
    """
    if pending <= 0:
        return []
    stopped = next((each for each in admission.of_campaign if not each.open), None)
    if stopped is not None:
        return [Waiting(stopped, pending)]
    wave, in_flight, the_pace = admission.of_queue
    left, of_their_own = pending, []
    for each in held.values():  # what was read later than ``pending`` may be more
        of_their_own.append(replace(each, devices=min(left, each.devices)))
        left -= of_their_own[-1].devices
    again = min(left, due.pending)
    left -= again
    found = []
    for verdict in (wave, in_flight):
        passed = left if verdict.room is None else min(left, verdict.room)
        found.append(Waiting(verdict, left - passed))
        left = passed
    now = min(again, due.pending_now) + min(left, max(0, (the_pace.room or 0) - due.devices))
    ahead = due.before_pending if again else due.devices
    found.append(Waiting(_in_line(the_pace, now, facts.after(admission.left.turn_in(ahead))), left + again))
    return [each for each in (*found, *of_their_own) if each.devices]


def _in_line(the_pace: Verdict, now: int, until: datetime) -> Verdict:
    """The pace's verdict on devices of which so many may go ``now``, and if none, the first ``until`` then."""
    if the_pace.open:
        detail = {**the_pace.detail, "may_go_now": now}
        the_pace = replace(the_pace, text=f"{the_pace.text}; {now:,} may go now", detail=detail)
    return the_pace if now else replace(the_pace, until=until)
