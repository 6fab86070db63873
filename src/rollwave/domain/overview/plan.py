"""The plan of a campaign: how many devices its policy would have sent to by when, if nothing went wrong.

Ramp, pace, windows and soak are as the policy has them. Each device succeeds as soon as it is sent to, each gate passes
as soon as its soak is over, and approvals are given immediately. So a campaign cannot be ahead of its plan by much.
A policy without ``per_minute`` has no plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from rollwave.domain.policy import windows
from rollwave.domain.policy.document.model import PaceRule, ScheduleRule, WaveRule
from rollwave.domain.policy.pace import rate_of
from rollwave.domain.policy.waves import Soak
from rollwave.errors import UnreadableRow

MAX_PIECES = 2000
"""Maximum number of straight pieces that are computed of a plan. The rest of a longer one is not known."""

MAX_PLAN_POINTS = 200
"""Maximum number of points of a plan that is stored."""

LONGEST_DAYS = 3650
"""A plan that takes longer than ten years is cut there."""

SPANS_AT_ONCE = 50
"""Times in which windows are open that are computed together."""

_ROUNDING = 1e-9
"""Part of a device that is none."""


@dataclass(frozen=True, slots=True)
class PlannedWave:
    """Devices of a wave that were never sent to, and the seconds between its last device and the next wave."""

    devices: int
    soak: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a plan is made from.

    ``at``: when it begins. ``sent``, ``succeeded``: devices by then. ``waves``: the present wave and those after it.
    ``per_minute``: devices per minute of flat columns; None: ``pace`` has it. ``firmware_size``: bytes; None: unknown.
    """

    at: datetime
    sent: int
    succeeded: int
    waves: Sequence[PlannedWave]
    per_minute: float | None = None
    pace: PaceRule | None = None
    schedule: ScheduleRule | None = None
    firmware_size: int | None = None


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """The number of devices that are sent to by a time. Between two points it rises evenly."""

    at: datetime
    devices: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A curve. ``ends_at``: when the last device is sent to; None: that is not known, or the schedule ends before."""

    points: tuple[PlanPoint, ...]
    ends_at: datetime | None


class _Cut(Exception):
    """The plan goes no further."""


def ideal(facts: PlanFacts) -> Plan | None:
    """The plan. None: the policy does not limit devices per minute, or the firmware's size is needed and unknown."""
    try:
        if _rate(facts, facts.succeeded) is None:
            return None
    except UnreadableRow:
        return None
    curve = _Curve(facts)
    try:
        curve.draw()
    except _Cut:
        return Plan(_fewer(curve.points), None)
    return Plan(_fewer(curve.points), curve.now)


def soaks_left(rules: Sequence[WaveRule], number: int, soak: Soak | None, now: datetime) -> list[float]:
    """The seconds of soak of the wave ``number`` and each after it.

    ``soak``: the one of that wave that has begun, of which only the rest is left; None: it has not begun.
    """
    soaks = [each.gate.soak or 0.0 if each.gate else 0.0 for each in rules[number:]]
    if soaks and soak is not None:
        soaks[0] = max(0.0, soaks[0] - (now - soak.since).total_seconds())
    return soaks


def at(points: Sequence[PlanPoint], time: datetime) -> int:
    """The number of devices of a plan at a time."""
    before = points[0]
    for each in points:
        if each.at >= time:
            length = (each.at - before.at).total_seconds()
            share = (time - before.at).total_seconds() / length if length > 0 else 1.0
            return before.devices + round(max(0.0, share) * (each.devices - before.devices))
        before = each
    return before.devices


def in_turn(plans: Sequence[Plan]) -> tuple[PlanPoint, ...]:
    """One curve of several plans, each of which holds until the next one begins."""
    found: list[PlanPoint] = []
    drawn = [each for each in plans if each.points]
    for number, plan in enumerate(drawn):
        until = drawn[number + 1].points[0].at if number + 1 < len(drawn) else None
        if until is None:
            found += plan.points
        elif plan.points[0].at < until:
            found += [each for each in plan.points if each.at < until]
            found.append(PlanPoint(until, at(plan.points, until)))
    return tuple(found)


class _Curve:
    """Draws a plan, piece by piece."""

    def __init__(self, facts: PlanFacts) -> None:
        self._facts = facts
        self._pieces = 0
        self._sent = float(facts.sent)
        self._last = facts.at + timedelta(days=LONGEST_DAYS)
        self._spans = _spans(facts.schedule, facts.at)
        self._span = windows.Span(facts.at, facts.at)
        self.now = facts.at
        self.points = [PlanPoint(self.now, facts.sent)]

    def draw(self) -> None:
        """Draw all waves.

        Raises:
            _Cut: the plan takes too long, or its windows stay closed.
        """
        waves = [each for each in self._facts.waves if each.devices or each.soak]
        for number, wave in enumerate(waves):
            self._send(wave.devices)
            if number < len(waves) - 1:
                self._wait(wave.soak)

    def _send(self, devices: int) -> None:
        left = float(devices)
        while left > _ROUNDING:
            self._open()
            succeeded = int(self._facts.succeeded + self._sent - self._facts.sent + _ROUNDING)
            per_minute = _rate(self._facts, succeeded)
            if per_minute is None or per_minute <= 0:
                raise _Cut
            number = min(left, _until_ramp(self._facts.pace, succeeded))
            seconds = 60 * number / per_minute
            if self._span.end is not None and seconds > (room := (self._span.end - self.now).total_seconds()):
                number, seconds = room * per_minute / 60, room
            self._sent += number
            left -= number
            self._wait(seconds)

    def _open(self) -> None:
        """Wait until the windows are open."""
        while self._span.end is not None and self._span.end <= self.now:
            following = next(self._spans, None)
            if following is None:
                raise _Cut
            self._span = following
        if self._span.start > self.now:
            self._wait((self._span.start - self.now).total_seconds())

    def _wait(self, seconds: float) -> None:
        """Go on in time, and draw the piece."""
        self._pieces += 1
        if self._pieces > MAX_PIECES or seconds > (self._last - self.now).total_seconds():
            raise _Cut
        self.now += timedelta(seconds=seconds)
        if seconds > 0:
            self.points.append(PlanPoint(self.now, int(self._sent + _ROUNDING * 1000)))


def _rate(facts: PlanFacts, succeeded: int) -> float | None:
    if facts.per_minute is not None:
        return facts.per_minute
    if facts.pace is None or facts.pace.per_minute is None:
        return None
    rate = rate_of(facts.pace, succeeded=succeeded, size=facts.firmware_size)
    return None if rate is None else rate.per_minute


def _until_ramp(pace: PaceRule | None, succeeded: int) -> float:
    """Devices that must succeed until the ramp's next step; infinite: there is none."""
    if pace is None or pace.ramp is None or pace.per_minute is None or pace.ramp.factor == 1:
        return math.inf
    every = pace.ramp.every_succeeded
    top = math.log(max(1.0, pace.per_minute / pace.ramp.from_)) / math.log(pace.ramp.factor)
    if succeeded >= math.ceil(top) * every:
        return math.inf
    return every - succeeded % every


def _spans(rule: ScheduleRule | None, begins: datetime) -> Iterator[windows.Span]:
    """The times in which devices may be sent to, in order. Windows in the devices' zone count in the schedule's."""
    if rule is None:
        yield windows.Span(begins, None)
        return
    begins = max(begins, rule.start or begins)
    zone = windows.zone_of(rule.time_zone) or UTC
    for span in _open_times(rule, zone, begins):
        if rule.end is not None and span.start >= rule.end:
            return
        ends = span.end if rule.end is None else min(rule.end, span.end or rule.end)
        yield windows.Span(span.start, ends)


def _open_times(rule: ScheduleRule, zone: tzinfo, begins: datetime) -> Iterator[windows.Span]:
    if not rule.windows:
        yield windows.Span(begins, None)
        return
    while True:
        found = windows.next_openings(rule.windows, zone, None, begins, SPANS_AT_ONCE)
        yield from found
        if len(found) < SPANS_AT_ONCE or found[-1].end is None:
            return
        begins = found[-1].end


def _fewer(points: Sequence[PlanPoint]) -> tuple[PlanPoint, ...]:
    """At most ``MAX_PLAN_POINTS``: the first one, and the last one in each of as many equal parts of the time."""
    if len(points) <= MAX_PLAN_POINTS:
        return tuple(points)
    first, last = points[0], points[-1]
    length = (last.at - first.at) / (MAX_PLAN_POINTS - 2)
    parts = {min(MAX_PLAN_POINTS - 3, (each.at - first.at) // length): each for each in points[1:]}
    return first, *parts.values()
