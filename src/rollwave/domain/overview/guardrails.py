"""How far the guardrails of a campaign are from tripping, in numbers and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rollwave.domain.overview.texts import many, percent
from rollwave.domain.overview.waves import WaveStanding
from rollwave.domain.policy.words import TripAction, group_text

_ROUNDING = 1e-9
"""A threshold is a float here: 0.29 of 100 devices are 29."""


@dataclass(frozen=True, slots=True)
class GuardrailStanding:
    """How far a guardrail is from tripping. Shares are 0 to 1.

    ``limit``: lower bound on the true share of failures; None: the guardrail compares the ``value`` itself.
    ``wave`` (its name; ``wave_number`` is from 0) or ``labels`` say which group of devices it judges; ``finished`` and
    ``failed`` count these (None: a server of an earlier version does not tell). ``evidence``: the numbers of the trip.
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
    wave_number: int | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any], waves: Sequence[WaveStanding] = ()) -> GuardrailStanding:
        """Read an element of ``guardrails`` of ``GET …/campaigns/{id}``. ``waves``: those of the campaign."""
        found: dict[str, Any] = {each.name: entry.get(each.name) for each in fields(cls)}
        if (number := found["wave"]) is not None:
            found["wave_number"] = number
            found["wave"] = next((each.name for each in waves if each.number == number), f"number {number + 1}")
        return cls(**found)

    @property
    def used(self) -> float:
        """How near it is: 1 when it trips.

        While too few devices have finished, a share says little: then the failures count that would trip it.
        """
        if self.tripped:
            return 1.0
        if (needed := self._failures_needed) is not None:
            return min(1.0, (self.failed or 0) / needed)
        return min(1.0, (self.value if self.limit is None else self.limit) / max(self.threshold, 1e-9))

    @property
    def failures_left(self) -> int | None:
        """The number of further failures that trip it, at the latest once enough have finished; None: none does."""
        if (needed := self._failures_needed) is not None:
            return max(0, needed - (self.failed or 0))
        return self.trips_after

    @property
    def _failures_needed(self) -> int | None:
        """The failures that trip a ratio when enough devices have finished; None: enough have, or it is no ratio."""
        if self.limit is not None or self.trips_after is None or self.finished is None or not self._missing:
            return None
        return int(self.threshold * (self.min_finished or 0) + _ROUNDING) + 1

    @property
    def _missing(self) -> int:
        """Number of devices that have to finish before it may trip."""
        return max(0, (self.min_finished or 0) - (self.finished or 0))

    @property
    def over(self) -> bool:
        """Whether its lower bound is over the threshold, though too few devices have finished for it to trip."""
        return not self.tripped and self.limit is not None and self.limit > self.threshold

    @property
    def group(self) -> str:
        """The group of devices that it judges, in words. Empty: all devices of the campaign."""
        return f"wave {self.wave}" if self.wave is not None else group_text(self.labels)

    @property
    def of_group(self) -> str:
        """The group at the beginning of a sentence. Empty: all devices of the campaign."""
        return f"devices with {self.group}" if self.labels and self.wave is None else self.group

    @property
    def text(self) -> str:
        """How far it is from tripping, or what it did, in words."""
        if self.tripped:
            done = "under quarantine" if self.action == TripAction.QUARANTINE else f"has tripped ({self.action})"
            return f"{self._subject}: {done}" if self.group else f"{self.name} {done}"
        return f"{self._subject}: {self.standing_text}"

    @property
    def end_text(self) -> str:
        """What it was at the end of its campaign, in words."""
        if self.tripped:
            return f"{self._subject}: tripped, {self.trip_text}"
        return f"{self._subject}: {self._share} at the end, limit {percent(self.threshold)}"

    @property
    def standing_text(self) -> str:
        """How far it is from tripping, in words, without its name."""
        least = "" if self.limit is None else f", at least {percent(self.limit)}"
        quarantines = self.action == TripAction.QUARANTINE
        stops = "goes under quarantine" if quarantines else "stops itself"
        return f"{self._share}{least}; {stops} above {percent(self.threshold)}{f', {self.trips}' if self.trips else ''}"

    @property
    def trip_text(self) -> str:
        """By which numbers it has tripped, in words."""
        failed, of, value, limit = self._trip_numbers
        least = "" if limit is None else f", at least {percent(limit)} of all"
        return f"{failed:,} of {of:,} failed ({percent(value)}{least}, over {percent(self.threshold)})"

    @property
    def trip_counts(self) -> tuple[int, int]:
        """Failed devices, and the devices that it judged, when it tripped."""
        failed, of, _, _ = self._trip_numbers
        return failed, of

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
        return f"{percent(self.failed / self.finished)} failed ({self.failed:,} of {self.finished:,})"

    @property
    def trips(self) -> str:
        """When it trips, in words. Empty: never, or it has tripped."""
        left = self.trips_after
        if left is None or self.tripped:
            return ""
        if self._failures_needed is not None:
            return f"once {self.min_finished:,} have finished"
        if self.limit is not None and self.finished is not None and self._missing > left:
            return (f"after {_failures(left)}, " if left else "") + f"once {self.min_finished:,} have finished"
        return f"after {_failures(left)}{' in a row' if left > 1 else ''}"

    def to_json(self, *, ended: bool = False) -> dict[str, Any]:
        """The guardrail as an element of ``guardrails`` of the overview. ``ended``: the campaign has, so none trips."""
        shown = {
            **{name: getattr(self, name) for name in ("name", "scope", "method", "action", "group", "value", "limit")},
            **{name: getattr(self, name) for name in ("threshold", "trips_after", "trips", "tripped", "used", "text")},
            "wave": self.wave_number,
            "labels": self.labels,
        }
        return shown | {"trips_after": None, "trips": "", "text": self.end_text} if ended else shown


_REASON = re.compile(r"(\d+) of (\d+) finished devices failed \([\d.]+%, over [\d.]+%\)")


def with_reason(standing: GuardrailStanding, reason: str | None) -> GuardrailStanding:
    """The guardrail of flat columns in an aborted campaign, with the numbers of its trip from the ``reason``.

    Flat columns store no evidence, and devices in progress finish after the trip.
    """
    found = _REASON.fullmatch(reason or "")
    if found is None or standing.evidence is not None:
        return standing
    failed, of = int(found[1]), int(found[2])
    return replace(standing, tripped=True, evidence={"failed": failed, "of": of, "value": failed / max(1, of)})


def most_used_first(standings: Sequence[GuardrailStanding]) -> list[GuardrailStanding]:
    """The guardrails, that one first which is nearest to tripping, or has tripped."""
    return sorted(standings, key=lambda each: -each.used)


def _failures(left: int) -> str:
    return many(left, "more failure")
