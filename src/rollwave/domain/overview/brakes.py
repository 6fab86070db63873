"""The halt and the freezes that stop a campaign, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.overview.texts import after_colon, utc


@dataclass(frozen=True, slots=True)
class StoppedBy:
    """A halt, or a freeze, that stops the campaign. ``until``: None: until it is lifted."""

    kind: str
    name: str
    until: datetime | None
    reason: str | None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> StoppedBy:
        """Read an element of ``stopped_by``."""
        until = entry.get("until")
        return cls(
            entry["kind"],
            entry["name"],
            datetime.fromisoformat(until) if isinstance(until, str) else until,
            entry.get("reason"),
        )

    @property
    def is_halt(self) -> bool:
        """Whether it lasts until somebody lifts it."""
        return self.kind == BrakeKind.HALT

    @property
    def text(self) -> str:
        """Which one it is, until when, and why."""
        which = self.kind if self.is_halt else f"{self.kind} {self.name}"
        until = "" if self.until is None else f" until {utc(self.until)}"
        return f"{which}{until}{after_colon(self.reason)}"
