"""The facts that admission is based on: the state of a campaign, and of one of its devices, at one moment.

A claim reads them under the campaign's lock, *waiting* and *explain* without it. Times are seconds of the database's
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rollwave.domain.brakes import Brake
from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import IN_PROGRESS, TERMINAL, Cell, ExecutionStatus
from rollwave.domain.policy.budgets import BudgetOfDevice
from rollwave.domain.policy.rules import Wave
from rollwave.domain.policy.words import WaveState


@dataclass(frozen=True, slots=True)
class Remaining:
    """The remaining devices of a campaign: ``waiting`` for their first command, or sent to and ``unfinished``."""

    waiting: bool
    unfinished: bool


@dataclass(frozen=True, slots=True)
class SegmentGroup:
    """The devices of segments that gates treat alike.

    ``time_zone``: as their label has it; None: they have none, or no window asks for it. ``waiting``: never sent to, in
    the waves up to the present one; ``in_later_waves``: the same, in those after it. ``held``: how many of those
    ``waiting`` a budget holds. ``first`` and ``last``: the numbers of the segments that have others (None: none has).
    """

    time_zone: str | None
    quarantined: bool
    waiting: int
    in_later_waves: int
    held: int = 0
    first: int | None = None
    last: int | None = None


class PaceClaim(NamedTuple):
    """A claim ``at`` a time (epoch seconds) of so many ``devices`` that count in the pace."""

    at: float
    devices: int


@dataclass(frozen=True, slots=True)
class Used:
    """What the campaign's row says about its present step.

    ``age``: seconds since the step began (None: nothing was claimed yet); ``used``: devices claimed in it;
    ``carried``: the part of a device that was left over before it, from 0 to 1. ``recent``: the claims of the last tick
    or more, oldest first.
    """

    age: float | None
    used: int = 0
    carried: float = 0.0
    recent: tuple[PaceClaim, ...] = ()


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """The facts about the queue of a campaign under a policy document.

    ``wave``: the name of the present wave, ``state`` of its gate, ``until`` when that changes (None: unknown), and what
    it is ``lacking``. ``wave_max_in_flight``: the wave's cap, and ``wave_in_flight`` its devices in flight.
    ``in_flight``: the campaign's. ``succeeded``: its devices. ``firmware_size``: bytes; None: unknown. ``used``: the
    pace so far. ``rooms``: the next cells to take devices from, in their turn, each with the number of its devices;
    then the other numbers are those of these devices alone. None: all devices are counted. ``only_wave``: the one wave
    that all devices in the queue are in; None: they may be in several.
    """

    groups: tuple[SegmentGroup, ...]
    wave: str
    state: WaveState
    number: int = 0
    until: datetime | None = None
    lacking: str = ""
    wave_max_in_flight: int | None = None
    wave_in_flight: int = 0
    in_flight: int = 0
    succeeded: int = 0
    firmware_size: int | None = None
    used: Used = Used(None)
    rooms: Mapping[Cell, int] | None = None
    only_wave: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one campaign.

    ``unreadable``: the reason for which its policy or firmware cannot be read (None: both can). ``in_own_database``:
    the installation belongs to this database. ``targeted``: number of devices targeted so far (None: all are);
    ``targeting_fault``: the reason for which that cannot go on. ``counted``: its counters are right and its waves are
    planned. ``heard``: a listener is subscribed, so reports arrive. ``wave``: the present wave. ``sent``: number of
    devices sent to; ``in_flight``: number of those that are not terminal, counted up to the policy's cap. ``tick``:
    seconds of the pace's interval; ``interval_age``: seconds since it began (None: none has begun); ``interval_used``:
    number of devices claimed in it; ``steps``: number of its parts. ``remaining`` is known only if a wave may have
    finished. ``queue``: under a policy document, if its devices are placed. ``brakes``: the tenant's halt, and its
    freezes that are not over.
    """

    now: datetime
    status: CampaignStatus
    tick: float
    wave: Wave
    reason: str | None = None
    unreadable: str | None = None
    in_own_database: bool = True
    targeted: int | None = None
    targeting_fault: str | None = None
    counted: bool = True
    heard: bool = True
    sent: int = 0
    in_flight: int = 0
    interval_age: float | None = None
    interval_used: int = 0
    steps: int = 1
    remaining: Remaining | None = None
    brakes: tuple[Brake, ...] = ()
    queue: QueueFacts | None = None

    def after(self, seconds: float) -> datetime:
        """The time ``seconds`` from now, or the last one that a datetime can represent."""
        try:
            return self.now + timedelta(seconds=seconds)
        except OverflowError:
            return datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SegmentOfDevice:
    """The ``number`` of a device's segment and ``wave``. ``room``: number of devices that the next claim takes from it.

    ``budgets``: those that count the device. ``held``: one of them holds it. ``behind``: the number of the budget whose
    last places devices before it in the queue take; None: none.
    """

    number: int
    wave: int
    time_zone: str | None
    quarantined: bool
    room: int = 0
    budgets: tuple[BudgetOfDevice, ...] = ()
    held: bool = False
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The facts about one device of a campaign.

    ``due_in``: seconds until its lease, deadline or delay ends, negative after that; None: it has none.
    ``addressable``: its id can be a level of a topic. ``out_of_time``: its device timeout is over. ``finished``: it has
    ended, and a host has overwritten its status. ``ahead``: number of devices that a claim takes before it;
    ``ahead_fresh``: how many of them were never sent to. ``ahead_counted`` False: there may be more of them.
    ``segment``: under a policy document, if it is placed; ``ahead_fresh`` then counts devices of its segment.
    """

    status: ExecutionStatus
    attempt: int = 0
    sent_attempt: int = 0
    failed_attempt: int = 0
    due_in: float | None = None
    refused_for: Refusal | None = None
    addressable: bool = True
    out_of_time: bool = False
    finished: bool = False
    ahead: int = 0
    ahead_fresh: int = 0
    ahead_counted: bool = True
    error: str | None = None
    segment: SegmentOfDevice | None = None

    @property
    def fresh(self) -> bool:
        """Whether it waits for its first command."""
        return self.status is ExecutionStatus.PENDING and self.attempt == 0

    @property
    def unacknowledged(self) -> bool:
        """Whether it was claimed and the broker has not acknowledged the command."""
        return self.attempt > self.sent_attempt

    @property
    def to_be_sent_again(self) -> bool:
        """Whether it was claimed before and will be sent a command again, now or when it is due."""
        if self.fresh or self.status in TERMINAL:
            return False
        if self.status in IN_PROGRESS and (self.finished or self.due_in is None):
            return False
        return (
            self.status is ExecutionStatus.PENDING
            or self.unacknowledged
            or (self.failed_attempt == self.attempt and not self.out_of_time)
        )
