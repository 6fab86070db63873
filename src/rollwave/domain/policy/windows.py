"""Time windows: whether devices of one time zone may be sent to at a moment, and when that changes.

Allow windows add up, each cut by its cutoff first; deny windows win over them; without any allow window, every time is
allowed that is not denied. A window is a cron expression with a duration of elapsed time, or a start with an end.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from rollwave.domain.policy.document.model import Window
from rollwave.domain.policy.words import DEVICE_ZONE, WindowKind

__all__ = [
    "Opening",
    "Openings",
    "Span",
    "WindowKind",
    "check_cron",
    "next_openings",
    "opening",
    "shown_zone",
    "zone_name",
    "zone_of",
]

HORIZON_DAYS = 400
"""A cron expression must fire within so many days, and a change is looked for no further."""

_CYCLE = datetime(2027, 1, 1, tzinfo=UTC), datetime(2055, 1, 1, tzinfo=UTC)
"""28 years, after which the days of the week fall on the same dates again."""

MAX_EDGES = 2_000
"""Beginnings and ends of windows that are looked at for one answer: windows may touch each other for ever."""

MAX_KEPT = 20_000
"""Maximum number of answers that :class:`Openings` keeps."""

_BEGIN, _END = 1, -1
"""By how much the number of open windows changes where one begins, and where it ends."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether devices may be sent to, and ``until`` when at least that stays so; None: for longer than the horizon.

    ``denied_by``: the name of a deny window that is in force.
    """

    open: bool
    until: datetime | None
    denied_by: str | None = field(default=None, compare=False)


class Span(NamedTuple):
    """A time in which devices may be sent to, from ``start`` to before ``end``; None: it has no end that is known."""

    start: datetime
    end: datetime | None


class _Edge(NamedTuple):
    """A window begins or ends."""

    at: datetime
    step: int
    kind: WindowKind


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) | {"UTC"}


def zone_of(name: str | None) -> ZoneInfo | None:
    """The zone of an IANA name, None where there is none of this name."""
    return ZoneInfo(name) if name in _zone_names() else None


def zone_name(zone: tzinfo) -> str:
    """The IANA name of a zone."""
    return zone.key if isinstance(zone, ZoneInfo) else "UTC"


_FIELDS = {
    "Bad minute": "its minute is not 0 to 59",
    "Bad hour": "its hour is not 0 to 23",
    "Bad day-of-month": "its day of the month is not 1 to 31, or does not exist",
    "Bad month": "its month is not 1 to 12",
    "Bad day-of-week": "its day of the week is not 0 to 7",
    "Wrong number of fields": "it has not five fields",
}
"""The messages of cronsim, in words that say what is allowed."""


@lru_cache(maxsize=1024)
def check_cron(expression: str) -> str | None:
    """What is wrong with a cron expression; None: nothing. It must fire within the horizon, whenever that begins."""
    at, end = _CYCLE
    try:
        next(CronSim(expression, at))
        while at < end:
            last = next(CronSim(expression, at + timedelta(days=HORIZON_DAYS), reverse=True))
            if last <= at:
                return f"{expression!r} does not fire within {HORIZON_DAYS} days of {at:%Y-%m-%d}"
            at = last
    except CronSimError as error:
        said = _FIELDS.get(str(error), str(error))
        return f"{expression!r} is not a cron expression: {said}"
    except StopIteration:
        return f"{expression!r} never fires"
    return None


def opening(windows: Sequence[Window], default: tzinfo, device: tzinfo | None, at: datetime) -> Opening:
    """The state of ``windows`` at a moment, for devices of one zone.

    Args:
        windows: those of a policy document.
        default: the zone of windows that name none, and of devices without one.
        device: the devices' zone; None: they have none.
        at: any aware time.
    """
    changes = _changes(windows, default, device, at)
    _, state = next(changes)
    change = next(changes, None)
    denied = [] if state else _denying(windows, default, device, at)
    return Opening(state, change[0] if change else None, denied[0].name if denied else None)


def next_openings(
    windows: Sequence[Window], default: tzinfo, device: tzinfo | None, at: datetime, n: int = 5
) -> list[Span]:
    """The next ``n`` times within the horizon in which devices of one zone may be sent to, in order, in UTC.

    The first one begins at ``at`` if the windows are open then. Arguments as for :func:`opening`.
    """
    found: list[Span] = []
    changes = _first(_changes(windows, default, device, at), 2 * n + 1)
    ends: list[datetime | None] = [when for when, _ in changes[1:]]
    for (start, is_open), end in zip(changes, [*ends, None], strict=True):
        if is_open and len(found) < n:
            found.append(Span(start, end))
    return found


def shown_zone(windows: Sequence[Window], default: tzinfo, device: tzinfo | None) -> tzinfo:
    """The zone in which times of these windows are shown: the devices', if a window asks for it."""
    in_device_zone = [each for each in windows if each.differs_by_device]
    return _zone((in_device_zone or list(windows))[0], default, device)


class Openings:
    """Answers of :func:`opening`, each computed once for a policy and a zone, and kept until it changes.

    One object serves every campaign of a process. A policy is known by its tuple of windows, which is read once for a
    revision.
    """

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._kept: dict[tuple[int, str, str | None], _Kept] = {}

    def of(self, windows: tuple[Window, ...], default: tzinfo, device: tzinfo | None, at: datetime) -> Opening:
        """The state of ``windows``. Arguments as for :func:`opening`."""
        key = id(windows), zone_name(default), None if device is None else zone_name(device)
        kept = self._kept.get(key)
        if kept is not None and kept.since <= at < kept.until:
            return kept.opening
        found = opening(windows, default, device, at)
        until = found.until or at + timedelta(days=1)
        if found.denied_by is not None:  # until another window denies, or it is closed for another reason
            denies = [each for each in windows if each.kind is WindowKind.DENY]
            until = min(until, opening(denies, default, device, at).until or until)
        if key not in self._kept and len(self._kept) >= self._max_kept:
            del self._kept[next(iter(self._kept))]  # the oldest one; it is computed again if it is needed
        self._kept[key] = _Kept(windows, at, until, found)
        return found


class _Kept(NamedTuple):
    """An answer, and the times from when and until when it holds. ``windows`` keeps its id from being used again."""

    windows: tuple[Window, ...]
    since: datetime
    until: datetime
    opening: Opening


def _changes(
    windows: Sequence[Window], default: tzinfo, device: tzinfo | None, at: datetime
) -> Iterator[tuple[datetime, bool]]:
    """The time ``at`` and whether the windows are open then, followed by each change.

    Ends at the horizon. After ``MAX_EDGES``, the last element is no change: the state lasts at least until then.
    """
    at = at.astimezone(UTC)
    open_windows = {WindowKind.ALLOW: 0, WindowKind.DENY: 0}
    any_allow = any(each.kind is WindowKind.ALLOW for each in windows)

    def is_open() -> bool:
        return not open_windows[WindowKind.DENY] and (open_windows[WindowKind.ALLOW] > 0 or not any_allow)

    edges = heapq.merge(*(_edges(each, _zone(each, default, device), at) for each in windows))
    state, seen = None, 0
    for when, together in groupby(edges, key=lambda edge: edge.at):
        if when > at and state is None:
            state = is_open()
            yield at, state
        for edge in together:
            open_windows[edge.kind] += edge.step
            seen += when > at
        if state is not None and is_open() is not state:
            state = is_open()
            yield when, state
        elif seen > MAX_EDGES and state is not None:
            yield when, state
            return
    if state is None:
        yield at, is_open()


def _zone(window: Window, default: tzinfo, device: tzinfo | None) -> tzinfo:
    if window.time_zone is None:
        return default
    if window.time_zone == DEVICE_ZONE:
        return device or default
    return zone_of(window.time_zone) or default


def _edges(window: Window, zone: tzinfo, at: datetime) -> Iterator[_Edge]:
    """Where the window begins and ends, in order, from what may still matter at a moment to the horizon."""
    cut = timedelta(seconds=window.cutoff or 0)
    if window.cron is None:
        if window.start is not None and window.end is not None:
            yield _Edge(window.start.astimezone(UTC), _BEGIN, window.kind)
            yield _Edge(window.end.astimezone(UTC) - cut, _END, window.kind)
        return
    duration = timedelta(seconds=window.duration or 0) - cut
    horizon = at + timedelta(days=HORIZON_DAYS)
    ends: list[datetime] = []
    for local in CronSim(window.cron, (at - duration).astimezone(zone)):
        begins = local.astimezone(UTC)
        while ends and ends[0] <= begins:
            yield _Edge(heapq.heappop(ends), _END, window.kind)
        if begins > horizon:
            break
        yield _Edge(begins, _BEGIN, window.kind)
        heapq.heappush(ends, begins + duration)
    for each in sorted(ends):
        yield _Edge(each, _END, window.kind)


def _denying(windows: Sequence[Window], default: tzinfo, device: tzinfo | None, at: datetime) -> list[Window]:
    """The deny windows that are in force at a moment."""
    at = at.astimezone(UTC)
    denies = [each for each in windows if each.kind is WindowKind.DENY]
    return [each for each in denies if _begun_and_not_ended(_edges(each, _zone(each, default, device), at), at)]


def _begun_and_not_ended(edges: Iterator[_Edge], at: datetime) -> bool:
    count = 0
    for edge in edges:
        if edge.at > at:
            break
        count += edge.step
    return count > 0


def _first(changes: Iterator[tuple[datetime, bool]], n: int) -> list[tuple[datetime, bool]]:
    """The first ``n`` changes, without the last one that is none."""
    found: list[tuple[datetime, bool]] = []
    for when, state in changes:
        if found and found[-1][1] is state:
            break
        found.append((when, state))
        if len(found) == n:
            break
    return found
