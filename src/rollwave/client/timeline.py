"""The past of a campaign, as the API's timeline tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.client.text import visible
from rollwave.domain.execution import ExecutionStatus

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
    """The counters of a campaign over time, oldest first.

    ``plan``: how many devices the policy would have sent to by a time. ``recent``: devices that finished per minute, in
    equal parts of the last hour.
    """

    points: Sequence[Point] = ()
    plan: Sequence[tuple[datetime, float]] = ()
    recent: Sequence[float] = ()
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
            [float(each) for each in document["recent"]],
            [Marker(_time(each["at"]), each["kind"], visible(each["text"])) for each in document["markers"]],
        )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
