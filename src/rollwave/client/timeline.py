"""The past of a campaign: what the API's timeline says of it, and how fast devices finished."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from rollwave.client.text import visible
from rollwave.domain.execution import ExecutionStatus

RATE_SPAN = timedelta(hours=1)
"""How far back the rate is shown."""

_KEYS: Mapping[str, ExecutionStatus] = {
    "pending": ExecutionStatus.PENDING,
    "downloading": ExecutionStatus.DOWNLOADING,
    "installing": ExecutionStatus.INSTALLING,
    "succeeded": ExecutionStatus.SUCCESS,
    "failed": ExecutionStatus.FAILED,
    "skipped": ExecutionStatus.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Point:
    """The number of devices in each state at one moment."""

    at: datetime
    by_state: Mapping[ExecutionStatus, int]

    @property
    def finished(self) -> int:
        """The devices that had succeeded or failed."""
        return self.by_state[ExecutionStatus.SUCCESS] + self.by_state[ExecutionStatus.FAILED]


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened to the campaign, such as a pause."""

    at: datetime
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The counters of a campaign over time, oldest first, and its plan: how many devices should have finished when."""

    points: Sequence[Point] = ()
    plan: Sequence[tuple[datetime, float]] = ()
    markers: Sequence[Marker] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Timeline:
        """Read the response of ``GET …/campaigns/{id}/timeline``."""
        return cls(
            [
                Point(_time(each["at"]), {state: int(each[key]) for key, state in _KEYS.items()})
                for each in document["points"]
            ],
            [(_time(each["at"]), float(each["devices"])) for each in document["plan"] or ()],
            [Marker(_time(each["at"]), each["kind"], visible(each["text"])) for each in document["markers"]],
        )

    def rates(self, buckets: int) -> list[float]:
        """Devices finished per minute, in ``buckets`` equal parts of the last hour or of the whole time if shorter.

        Empty: there are fewer than two points.
        """
        if len(self.points) < 2 or self.points[0].at >= self.points[-1].at:
            return []
        end = self.points[-1].at
        start = max(self.points[0].at, end - RATE_SPAN)
        step = (end - start) / buckets
        finished = [self._finished_at(start + step * number) for number in range(buckets + 1)]
        minutes = step.total_seconds() / 60
        return [max(0.0, after - before) / minutes for before, after in pairwise(finished)]

    def _finished_at(self, moment: datetime) -> float:
        """The finished devices at this time, on a straight line between two points."""
        index = bisect_right(self.points, moment, key=lambda point: point.at)
        if index == 0:
            return float(self.points[0].finished)
        if index == len(self.points):
            return float(self.points[-1].finished)
        before, after = self.points[index - 1], self.points[index]
        share = (moment - before.at) / (after.at - before.at)
        return before.finished + share * (after.finished - before.finished)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
