"""How far a campaign is: its devices by state, and the shares of those that have finished or failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollwave.domain.execution import IN_PROGRESS, ExecutionStatus


@dataclass(frozen=True, slots=True)
class HowFar:
    """The devices of a campaign. ``by_state`` names every state."""

    by_state: Mapping[ExecutionStatus, int]

    @classmethod
    def read(cls, breakdown: Mapping[str, int]) -> HowFar:
        """Read ``status_breakdown``."""
        return cls({each: max(0, int(breakdown.get(each.value) or 0)) for each in ExecutionStatus})

    @property
    def total(self) -> int:
        return sum(self.by_state.values())

    @property
    def pending(self) -> int:
        return self.by_state[ExecutionStatus.PENDING]

    @property
    def succeeded(self) -> int:
        return self.by_state[ExecutionStatus.SUCCESS]

    @property
    def failed(self) -> int:
        return self.by_state[ExecutionStatus.FAILED]

    @property
    def skipped(self) -> int:
        return self.by_state[ExecutionStatus.SKIPPED]

    @property
    def in_progress(self) -> int:
        """Devices that are downloading or installing."""
        return sum(self.by_state[each] for each in IN_PROGRESS)

    @property
    def finished(self) -> int:
        """Devices that have succeeded or failed."""
        return self.succeeded + self.failed

    @property
    def finished_share(self) -> float:
        """Share of the devices that have succeeded or failed, 0 to 1. A skipped device was never updated."""
        return self.finished / self.total if self.total else 0.0

    @property
    def failure_rate(self) -> float:
        """Share of failed devices among the finished ones, 0 to 1."""
        return self.failed / self.finished if self.finished else 0.0

    def to_json(self) -> dict[str, int]:
        """The devices as ``devices`` of the overview."""
        return {"total": self.total, **{each.value: self.by_state[each] for each in ExecutionStatus}}
