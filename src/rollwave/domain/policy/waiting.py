"""Counts the devices that wait, by the gate that they wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollwave.domain.policy.admission import Admission
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.queue import Queue, quarantine
from rollwave.domain.policy.words import GateName


@dataclass(frozen=True, slots=True)
class Waiting:
    """The number of ``devices`` that wait for the gate of this verdict."""

    verdict: Verdict
    devices: int


@dataclass(frozen=True, slots=True)
class AgainInSegments:
    """``PENDING`` devices that are due again, of segments that gates treat alike. ``placed`` False: of no segment."""

    devices: int
    time_zone: str | None
    quarantined: bool
    placed: bool = True


@dataclass(frozen=True, slots=True)
class DueAgain:
    """Numbers of devices that were claimed before and are due again. A claim takes them before those never sent to.

    ``devices``: all of them; ``pending``: the PENDING ones. Of these, ``pending_now`` may go now; ``before_pending``
    devices go before the first. ``of_segments``: the PENDING ones under a policy document.
    """

    devices: int = 0
    pending: int = 0
    pending_now: int = 0
    before_pending: int = 0
    of_segments: tuple[AgainInSegments, ...] = ()


def count_waiting(
    admission: Admission, facts: Facts, *, pending: int, held: Mapping[GateName, Waiting], due: DueAgain = DueAgain()
) -> list[Waiting]:
    """Count the ``pending`` devices by the first gate that is closed to them. Devices without one count under the pace.

    ``held``: those of them that wait for their own reason.
    """
    if pending <= 0:
        return []
    stopped = next((each for each in admission.of_campaign if not each.open), None)
    if stopped is not None:
        return [Waiting(stopped, pending)]
    left, of_their_own = pending, []
    for each in held.values():  # these numbers were read after ``pending``, and may be larger
        of_their_own.append(replace(each, devices=min(left, each.devices)))
        left -= of_their_own[-1].devices
    again = min(left, due.pending)
    left -= again
    if admission.left is None:
        return [*_waiting_in_queue(admission.queue, left, again, due.of_segments), *of_their_own]
    wave, in_flight, the_pace = admission.of_queue
    found = []
    for verdict in (wave, in_flight):
        passed = left if verdict.room is None else min(left, verdict.room)
        found.append(Waiting(verdict, left - passed))
        left = passed
    now = min(again, due.pending_now) + min(left, max(0, (the_pace.room or 0) - due.devices))
    ahead = due.before_pending if again else due.devices
    found.append(Waiting(_in_line(the_pace, now, facts.after(admission.left.turn_in(ahead))), left + again))
    return [each for each in (*found, *of_their_own) if each.devices]


def _waiting_in_queue(
    queue: Queue | None, left: int, again: int, of_segments: Sequence[AgainInSegments]
) -> list[Waiting]:
    """Count ``left`` devices never sent to, and ``again`` that are due again, by the gates of a document.

    The gates of ``of_segments`` apply to devices that are due again too.
    """
    if queue is None:
        return [Waiting(_NOT_PLACED, left + again)]
    found = []
    for each in queue.held_back:  # counted before ``left`` was, and may be more
        found.append(Waiting(each.verdict, min(left, each.devices)))
        left -= found[-1].devices
    for of in of_segments:
        if (closed := _closed_to(queue, of)) is not None:
            found.append(Waiting(closed, min(again, of.devices)))
            again -= found[-1].devices
    found = _joined(found)
    for verdict in queue.limits[:-1]:
        passed = left if verdict.room is None else min(left, verdict.room)
        found.append(Waiting(verdict, left - passed))
        left = passed
    the_pace = queue.limits[-1]
    now = again + (left if the_pace.room is None else min(left, the_pace.room))
    detail = {**the_pace.detail, "may_go_now": now}
    if now:
        the_pace = replace(the_pace, text=f"{the_pace.text}; {now:,} may go now", detail=detail)
    found.append(Waiting(the_pace, left + again))
    return [each for each in found if each.devices]


_NOT_PLACED = Verdict(GateName.TARGETING, 0, "the devices are not placed yet")


def _closed_to(queue: Queue, devices: AgainInSegments) -> Verdict | None:
    """The first gate that is closed to devices of these segments that are due again; None: they may be sent to."""
    if not devices.placed:
        return _NOT_PLACED
    window = queue.window_of(devices.time_zone)
    if not window.open:
        return window
    return quarantine() if devices.quarantined else None


def _joined(found: Sequence[Waiting]) -> list[Waiting]:
    """One entry for each verdict, in the order of the gates."""
    joined: dict[tuple[GateName, str], Waiting] = {}
    for each in found:
        key = each.verdict.gate, each.verdict.text
        before = joined.get(key)
        joined[key] = each if before is None else replace(each, devices=each.devices + before.devices)
    order = list(GateName)
    return sorted(joined.values(), key=lambda each: order.index(each.verdict.gate))


def _in_line(the_pace: Verdict, now: int, until: datetime) -> Verdict:
    """The pace's verdict for devices of which ``now`` may be sent to now; if none, the first one ``until`` then."""
    if the_pace.open:
        detail = {**the_pace.detail, "may_go_now": now}
        the_pace = replace(the_pace, text=f"{the_pace.text}; {now:,} may go now", detail=detail)
    return the_pace if now else replace(the_pace, until=until)
