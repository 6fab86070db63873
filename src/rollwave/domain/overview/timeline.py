"""The past of a campaign: its counters from time to time, fewer of them the older they are.

A campaign has at most ``MAX_POINTS`` points, however long it runs. In its last hour they are at most ``FINE_SECONDS``
apart, since the forecast uses that hour. Before it they are about a hundredth of the campaign's age apart, which is
as much as a chart can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

FINE_FOR_SECONDS = 3600.0
"""Age up to which points stay as close together as they were written."""

FINE_SECONDS = 32.0
"""Longest time between two points of the last hour, if counters change all the time."""

COARSE_POINTS = 128
"""Maximum number of points before the last hour."""

MAX_POINTS = COARSE_POINTS + int(FINE_FOR_SECONDS / FINE_SECONDS) + 4
"""Maximum number of points that thinning leaves."""

SURPLUS_POINTS = 60
"""Points over the maximum that may be stored before they are thinned, so that this is rarely done."""


@dataclass(frozen=True, slots=True)
class Point:
    """The number of devices of a campaign in each state at one time."""

    at: datetime
    pending: int
    downloading: int
    installing: int
    succeeded: int
    failed: int
    skipped: int

    @property
    def finished(self) -> int:
        """Devices that have succeeded or failed."""
        return self.succeeded + self.failed

    @property
    def in_progress(self) -> int:
        """Devices that download or install."""
        return self.downloading + self.installing

    @property
    def unfinished(self) -> int:
        """Devices that are not terminal."""
        return self.pending + self.in_progress

    @property
    def counters(self) -> tuple[int, ...]:
        """The numbers without the time."""
        return self.pending, self.downloading, self.installing, self.succeeded, self.failed, self.skipped


def resolution(age: float, elapsed: float) -> float:
    """Seconds between two points that are ``age`` seconds old, in a series that is ``elapsed`` seconds long.

    A power of two, so that the points of a longer series are some of those of a shorter one. It does not fall with age.
    """
    coarse = 1.0
    while elapsed > COARSE_POINTS * coarse:
        coarse *= 2
    return coarse if age > FINE_FOR_SECONDS else min(coarse, FINE_SECONDS)


def surplus(times: Sequence[float]) -> list[float]:
    """The times of points to remove from a series; the others stay.

    The first and the last point stay, and of the points between them the last one in each interval of the resolution.

    Args:
        times: epoch seconds of all points, rising.
    """
    if len(times) < 3:
        return []
    first, last = times[0], times[-1]
    old, new = resolution(FINE_FOR_SECONDS + 1, last - first), resolution(0, last - first)

    def interval(at: float) -> tuple[float, int]:
        length = old if last - at > FINE_FOR_SECONDS else new
        return length, int((at - first) // length)

    return [at for at, following in pairwise(times[1:]) if interval(at) == interval(following)]
