"""How a campaign stands with its guardrails, its waves and the tenant's brakes, read from the API and put in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.policy.words import TripAction, WaveState, group_text

_WAVE_STATES: Mapping[str, str] = {
    WaveState.AWAITING_APPROVAL: "waits for an approval",
    WaveState.FAILED: "its gate has failed",
}
"""What is shown of a wave where its state alone would not say it."""


@dataclass(frozen=True, slots=True)
class GuardrailStanding:
    """How far a guardrail of a policy document is from tripping. Shares are 0 to 1.

    ``limit``: lower bound on the true share of failures; None: the guardrail compares the ``value`` itself.
    ``wave`` (its name) or ``labels`` say which group of devices it judges; ``finished`` and ``failed`` count these
    (None: a server of an earlier version does not tell).
    """

    name: str
    action: str
    value: float
    limit: float | None
    threshold: float
    trips_after: int | None
    tripped: bool
    wave: str | None = None
    labels: Mapping[str, object] | None = None
    finished: int | None = None
    failed: int | None = None
    min_finished: int | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any], waves: Sequence[WaveStanding] = ()) -> GuardrailStanding:
        """Read an element of ``guardrails``. ``waves``: those of the campaign."""
        found: dict[str, Any] = {each.name: entry.get(each.name) for each in fields(cls)}
        if (number := found["wave"]) is not None:
            found["wave"] = next((each.name for each in waves if each.number == number), f"number {number + 1}")
        return cls(**found)

    @property
    def used(self) -> float:
        """How near it is: 1 when it trips."""
        if self.tripped:
            return 1.0
        return min(1.0, (self.value if self.limit is None else self.limit) / max(self.threshold, 1e-9))

    @property
    def text(self) -> str:
        """How far it is from tripping, or what it did, in words."""
        if self.tripped:
            done = "under quarantine" if self.action == TripAction.QUARANTINE else f"has tripped ({self.action})"
            return f"{self._subject}: {done}" if self._group else f"{self.name} {done}"
        least = "" if self.limit is None else f", at least {percent(self.limit)}"
        return f"{self._subject}: {self._share}{least}, trips above {percent(self.threshold)}{self._rest}"

    @property
    def _group(self) -> str:
        if self.wave is not None:
            return f"wave {self.wave}"
        return group_text(self.labels)

    @property
    def _subject(self) -> str:
        return f"{self.name}, {self._group}" if self._group else self.name

    @property
    def _share(self) -> str:
        if not self.finished or self.failed is None:
            return f"{percent(self.value)} failed"
        return f"{self.failed:,} of {self.finished:,} failed"

    @property
    def _rest(self) -> str:
        """When it trips. Empty: never."""
        left = self.trips_after
        if left is None:
            return ""
        missing = (self.min_finished or 0) - (self.finished or 0)
        if self.limit is not None and self.finished is not None and missing > left:
            return f": when {self.min_finished:,} have finished" + (f" and {_failures(left)}" if left else "")
        return f": {_failures(left)}"


def _failures(left: int) -> str:
    return f"{left:,} more failure{'s' * (left != 1)}"


@dataclass(frozen=True, slots=True)
class WaveStanding:
    """A wave of a campaign. ``number``: from 0; ``state``: as the API has it."""

    number: int
    name: str
    size: int
    sent: int
    state: str

    @classmethod
    def read(cls, number: int, entry: Mapping[str, Any]) -> WaveStanding:
        """Read an element of ``waves``, which has this place in the list."""
        return cls(
            entry.get("number", number),
            entry.get("name") or f"wave {number + 1}",
            entry.get("size") or 0,
            entry.get("sent") or 0,
            entry.get("state") or "",
        )

    def text(self, waves: int) -> str:
        """Its name, its place among all ``waves``, and its state."""
        state = _WAVE_STATES.get(self.state, self.state)
        return f"{self.name} ({self.number + 1} of {waves})" + (f": {state}" if state else "")


@dataclass(frozen=True, slots=True)
class Brake:
    """A halt, or a freeze, that stops the campaign. ``until``: None: until it is lifted."""

    kind: str
    name: str
    until: datetime | None
    reason: str | None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Brake:
        """Read an element of ``stopped_by``."""
        until = entry.get("until")
        return cls(
            entry["kind"], entry["name"], None if until is None else datetime.fromisoformat(until), entry.get("reason")
        )

    @property
    def text(self) -> str:
        """Which one it is, until when, and why."""
        which = self.kind if self.kind == BrakeKind.HALT else f"{self.kind} {self.name}"
        until = "" if self.until is None else f" until {self.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{which}{until}" + (f": {self.reason}" if self.reason else "")


def percent(share: float) -> str:
    """A share, 0 to 1, in percent."""
    return f"{share * 100:.3g} %"
