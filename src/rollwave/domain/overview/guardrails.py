"""How far the guardrails of a campaign are from tripping, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rollwave.domain.overview.texts import many, percent
from rollwave.domain.overview.waves import WaveStanding
from rollwave.domain.policy.words import TripAction, group_text


@dataclass(frozen=True, slots=True)
class GuardrailStanding:
    """How far a guardrail is from tripping. Shares are 0 to 1.

    ``limit``: lower bound on the true share of failures; None: the guardrail compares the ``value`` itself.
    ``wave`` (its name) or ``labels`` say which group of devices it judges; ``finished`` and ``failed`` count these
    (None: a server of an earlier version does not tell). ``evidence``: the numbers of the trip.
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
    scope: str | None = None
    method: str | None = None
    evidence: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any], waves: Sequence[WaveStanding] = ()) -> GuardrailStanding:
        """Read an element of ``guardrails`` of ``GET …/campaigns/{id}``. ``waves``: those of the campaign."""
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
    def over(self) -> bool:
        """Whether its lower bound is over the threshold, though too few devices have finished for it to trip."""
        return not self.tripped and self.limit is not None and self.limit > self.threshold

    @property
    def group(self) -> str:
        """The group of devices that it judges, in words. Empty: all devices of the campaign."""
        return f"wave {self.wave}" if self.wave is not None else group_text(self.labels)

    @property
    def text(self) -> str:
        """How far it is from tripping, or what it did, in words."""
        if self.tripped:
            done = "under quarantine" if self.action == TripAction.QUARANTINE else f"has tripped ({self.action})"
            return f"{self._subject}: {done}" if self.group else f"{self.name} {done}"
        least = "" if self.limit is None else f", at least {percent(self.limit)}"
        return f"{self._subject}: {self._share}{least}, trips above {percent(self.threshold)}{self._rest}"

    @property
    def trip_text(self) -> str:
        """By which numbers it has tripped, in words."""
        failed, of, value, limit = self._trip_numbers
        least = "" if limit is None else f", at least {percent(limit)} of all"
        return f"{failed:,} of {of:,} failed ({percent(value)}{least}, over {percent(self.threshold)})"

    @property
    def _trip_numbers(self) -> tuple[int, int, float, float | None]:
        found = self.evidence or {}
        try:
            return int(found["failed"]), int(found["of"]), float(found["value"]), found.get("limit")
        except (KeyError, TypeError, ValueError):  # flat columns store no evidence
            return self.failed or 0, self.finished or 0, self.value, self.limit

    @property
    def _subject(self) -> str:
        return f"{self.name}, {self.group}" if self.group else self.name

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

    def to_json(self) -> dict[str, Any]:
        """The guardrail as an element of ``guardrails`` of the overview."""
        return {
            **{name: getattr(self, name) for name in ("name", "scope", "method", "action", "group", "value", "limit")},
            **{name: getattr(self, name) for name in ("threshold", "trips_after", "tripped", "used", "text")},
        }


def most_used_first(standings: Sequence[GuardrailStanding]) -> list[GuardrailStanding]:
    """The guardrails, that one first which is nearest to tripping, or has tripped."""
    return sorted(standings, key=lambda each: -each.used)


def _failures(left: int) -> str:
    return many(left, "more failure")
