"""Time windows: whether devices of one time zone may be sent to at a moment, and when that changes.

Allow windows add up, each cut by its cutoff first; deny windows win over them; without any allow window, every time is
allowed that is not denied. A window is a cron expression with a duration of elapsed time, or a start with an end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from rollwave.domain.policy.document.model import DEVICE_ZONE, Window, WindowKind

HORIZON_DAYS = 400
"""A cron expression must fire within so many days, and a change is looked for no further."""

MAX_EDGES = 5_000
"""Beginnings and ends of windows that are looked at for one change: windows may touch each other for ever."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether devices may be sent to, and ``until`` when at least that stays so; None: for longer than the horizon."""

    open: bool
    until: datetime | None


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) | {"UTC"}


def zone_of(name: str | None) -> ZoneInfo | None:
    """The zone of an IANA name, None where there is none of this name."""
    return ZoneInfo(name) if name in _zone_names() else None


def check_cron(expression: str) -> str | None:
    """What is wrong with a cron expression; None: nothing. It must fire within the horizon, wherever it begins."""
    try:
        first = next(CronSim(expression, datetime(2027, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        return f"{expression!r} is not a cron expression: {error}"
    except StopIteration:
        return f"{expression!r} never fires"
    if first - datetime(2027, 1, 1, tzinfo=UTC) > timedelta(days=HORIZON_DAYS):
        return f"{expression!r} does not fire within {HORIZON_DAYS} days"
    return None


def opening(windows: Sequence[Window], default: tzinfo, device: tzinfo | None, at: datetime) -> Opening:
    """The state of ``windows`` at a moment, for devices of one zone.

    Args:
        default: the zone of windows that name none, and of devices without one.
        device: the devices' zone; None: they have none.
        at: any aware time.
    """
    at = at.astimezone(UTC)
    allows = [each for each in windows if each.kind is WindowKind.ALLOW]
    count = {WindowKind.ALLOW: 0, WindowKind.DENY: 0}

    def is_open() -> bool:
        return not count[WindowKind.DENY] and bool(count[WindowKind.ALLOW] or not allows)

    edges = heapq.merge(*(_edges(each, _zone(each, default, device), at) for each in windows), key=lambda edge: edge[0])
    state, until, seen = None, at, 0
    for when, step, kind in edges:
        if when > at and state is None:
            state = is_open()
        if state is not None and when > until and is_open() is not state:
            return Opening(state, until)
        if seen > MAX_EDGES and when > at:
            return Opening(is_open(), when)
        count[kind] += step
        until, seen = max(when, at), seen + 1
    if state is None or is_open() is state:
        return Opening(is_open(), None)
    return Opening(state, until)


def _zone(window: Window, default: tzinfo, device: tzinfo | None) -> tzinfo:
    if window.time_zone is None:
        return default
    if window.time_zone == DEVICE_ZONE:
        return device or default
    return zone_of(window.time_zone) or default


def _edges(window: Window, zone: tzinfo, at: datetime) -> Iterator[tuple[datetime, int, WindowKind]]:
    """Beginnings (1) and ends (-1) in order, from those that may still matter at a moment."""
    cut = timedelta(seconds=window.cutoff or 0)
    if window.cron is None:
        if window.start is not None and window.end is not None:
            yield window.start.astimezone(UTC), 1, window.kind
            yield window.end.astimezone(UTC) - cut, -1, window.kind
        return
    duration = timedelta(seconds=window.duration or 0) - cut
    horizon = at + timedelta(days=HORIZON_DAYS)
    ends: list[datetime] = []
    # An occurrence that is repeated in the night of a clock change lies up to an hour further back.
    for begin in CronSim(window.cron, (at - duration - timedelta(hours=2)).astimezone(zone)):
        begins = begin.astimezone(UTC)
        while ends and ends[0] <= begins:
            yield heapq.heappop(ends), -1, window.kind
        if begins > horizon:
            break
        yield begins, 1, window.kind
        heapq.heappush(ends, begins + duration)
    for end in sorted(ends):
        yield end, -1, window.kind
