"""When a campaign will be done, from the rates of its last hour; or why nobody can say.

The last hour is cut into parts. In each part in which devices were in progress or finished, a number of devices a
minute finished. The forecast is the time that the remaining devices take at the 90th percentile of these rates, to the
time that they take at the 10th. Parts in which nothing was going on are left out: a pause, a closed window, a soak, and
the time before the first device finished.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.overview.timeline import FINE_FOR_SECONDS, Point

MIN_FINISHED = 10
"""Finished devices before there is a forecast."""

PARTS = 12
"""Parts of the last hour whose rates are compared."""

STEPS = 30
"""Parts of the last hour that a sparkline shows."""

MIN_PART_SECONDS = 10.0
"""Shortest part: commands go out in ticks of this length, so shorter ones would be empty by turns."""

LOW, HIGH = 0.1, 0.9
"""The percentiles between which the rate is expected."""

RATE_SECONDS = 300.0
"""The present rate is the mean of so many seconds."""

LONGEST_DAYS = 366
"""A later end is no forecast."""

NEAR_SECONDS = 600.0
"""Time before its end in which a forecast is exact to ten seconds, otherwise to a minute."""


@dataclass(frozen=True, slots=True)
class ForecastFacts:
    """What a forecast is made from.

    ``now``: when it is made. ``points``: the series, oldest first; the last one has the present counters. ``stopped``:
    what stops all sending, such as "sending is halted"; None: nothing. ``awaits_approval_of``: the wave whose gate
    waits for a person; None: none does. ``held_for``: seconds for which the policy still holds devices back: soaks, a
    closed window. ``ended_at``: of a final campaign.
    """

    now: datetime
    status: CampaignStatus
    points: Sequence[Point]
    being_targeted: bool = False
    stopped: str | None = None
    awaits_approval_of: str | None = None
    held_for: float = 0.0
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BandPoint:
    """The least and the greatest number of finished devices that are expected at a time."""

    at: datetime
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the campaign will be done: not before ``earliest``, probably by ``latest``.

    None: not known; ``text`` says why. ``band``: for a chart; empty without a forecast.
    """

    text: str
    earliest: datetime | None = None
    latest: datetime | None = None
    band: tuple[BandPoint, ...] = field(default=())


def forecast(facts: ForecastFacts) -> Forecast:
    """The forecast, or the reason for which there is none."""
    why = _why_none(facts)
    if why is not None:
        return Forecast(why)
    last = facts.points[-1]
    rates = sorted(_busy_rates(facts.points, facts.now))
    low, high = _percentile(rates, LOW), _percentile(rates, HIGH)
    begins = facts.now + timedelta(seconds=facts.held_for)
    earliest, latest = _after(begins, last.unfinished, high), _after(begins, last.unfinished, low)
    if earliest is None:
        return Forecast("no forecast: no device finished in the last hour")
    earliest, latest = _rounded(earliest, facts.now), None if latest is None else _rounded(latest, facts.now)
    band = _band((facts.now, begins, earliest, latest or earliest + (earliest - begins)), last, low, high)
    return Forecast(_text(facts.now, earliest, latest), earliest, latest, band)


def _why_none(facts: ForecastFacts) -> str | None:
    """The first reason that holds. None: there is a forecast."""
    last = facts.points[-1] if facts.points else None
    finished, unfinished = (last.finished, last.unfinished) if last else (0, 0)
    ended = "" if facts.ended_at is None else f" at {_utc(facts.ended_at, facts.now)} UTC"
    reasons = (
        (facts.status in FINAL, f"{facts.status.value.lower()}{ended}"),
        (facts.status is CampaignStatus.CREATED, "no forecast: not started yet"),
        (facts.status is CampaignStatus.PAUSED, "no forecast while paused"),
        (facts.stopped is not None, f"no forecast: {facts.stopped}"),
        (facts.being_targeted or last is None, "no forecast while devices are being targeted"),
        (facts.awaits_approval_of is not None, f"no forecast: wave {facts.awaits_approval_of} waits for approval"),
        (finished < MIN_FINISHED, f"no forecast before {MIN_FINISHED} devices have finished ({finished} so far)"),
        (not unfinished, "every device has finished"),
    )
    return next((text for holds, text in reasons if holds), None)


def rate_per_minute(points: Sequence[Point], now: datetime) -> float | None:
    """Devices that finished per minute in the last minutes. None: the series is too short."""
    if not points:
        return None
    since = max(points[0].at, now - timedelta(seconds=RATE_SECONDS))
    seconds = (now - since).total_seconds()
    if seconds < MIN_PART_SECONDS:
        return None
    rate = max(0.0, _finished(points, now) - _finished(points, since)) * 60 / seconds
    return float(f"{rate:.2g}") if rate < 100 else float(round(rate))


def recent(points: Sequence[Point], until: datetime) -> list[float]:
    """Devices that finished per minute, in ``STEPS`` equal parts of the last hour or of the whole series."""
    return [each.per_minute for each in _parts(points, until, STEPS, shortest=0.0)]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the last hour. ``busy``: devices finished, or were in progress after the first one had finished."""

    per_minute: float
    busy: bool


def _parts(points: Sequence[Point], until: datetime, number: int, *, shortest: float) -> list[_Part]:
    if not points:
        return []
    length = min(FINE_FOR_SECONDS, (until - points[0].at).total_seconds())
    if length <= 0:
        return []
    number = max(1, min(number, int(length / shortest))) if shortest else number
    step = length / number
    times = [until - timedelta(seconds=step * back) for back in range(number, -1, -1)]
    done = [_finished(points, each) for each in times]
    busy = [_before(points, each).in_progress > 0 for each in times]
    return [
        _Part(max(0.0, b - a) * 60 / step, b > a or (b > 0 and (busy[i] or busy[i + 1])))
        for i, (a, b) in enumerate(pairwise(done))
    ]


def _busy_rates(points: Sequence[Point], now: datetime) -> list[float]:
    parts = _parts(points, now, PARTS, shortest=MIN_PART_SECONDS)
    return [each.per_minute for each in parts if each.busy]


def _before(points: Sequence[Point], time: datetime) -> Point:
    """The last point up to a time, or the first one."""
    found = points[0]
    for each in points:
        if each.at > time:
            break
        found = each
    return found


def _finished(points: Sequence[Point], time: datetime) -> float:
    """Devices that had finished by a time, evenly between two points."""
    before = points[0]
    for each in points:
        if each.at > time:
            if each is before:
                return before.finished
            share = (time - before.at) / (each.at - before.at)
            return before.finished + share * (each.finished - before.finished)
        before = each
    return before.finished


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The value at a share of an ordered list, evenly between two of them."""
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _after(now: datetime, devices: int, per_minute: float) -> datetime | None:
    """When so many devices have finished at this rate. None: in more than a year, or never."""
    if per_minute <= 0 or devices / per_minute > LONGEST_DAYS * 24 * 60:
        return None
    return now + timedelta(minutes=devices / per_minute)


def _rounded(time: datetime, now: datetime) -> datetime:
    """The next whole minute, or ten seconds if it is near: more digits would change all the time and mean nothing."""
    step = 60.0 if (time - now).total_seconds() > NEAR_SECONDS else 10.0
    return datetime.fromtimestamp(math.ceil(time.timestamp() / step) * step, UTC)


def _band(times: Sequence[datetime], last: Point, low: float, high: float) -> tuple[BandPoint, ...]:
    """The band at these times, in order; devices go on at the second one."""
    total, begins = last.finished + last.unfinished, times[1]

    def expected(at: datetime, per_minute: float) -> int:
        minutes = max(0.0, (at - begins).total_seconds() / 60)
        return min(total, last.finished + round(per_minute * minutes))

    return tuple(BandPoint(each, expected(each, low), expected(each, high)) for each in sorted(set(times)))


def _text(now: datetime, earliest: datetime, latest: datetime | None) -> str:
    first = _utc(earliest, now)
    if latest is None:
        return f"done after {first} UTC at the earliest"
    last = _utc(latest, now)
    if first == last:
        return f"done at about {first} UTC"
    if first.rpartition(" ")[0] == last.rpartition(" ")[0]:
        last = last.rpartition(" ")[2]
    return f"done between {first} and {last} UTC"


def _utc(time: datetime, now: datetime) -> str:
    there, here = time.astimezone(UTC), now.astimezone(UTC)
    if there.date() == here.date():
        return f"{there:%H:%M}"
    return f"{there:%Y-%m-%d %H:%M}"
