"""The segments of a campaign that fail most, with a lower limit on the true share of failures of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollwave.domain.overview.texts import percent
from rollwave.domain.policy import sequential
from rollwave.domain.policy.sequential import Prefix
from rollwave.domain.policy.words import group_text

MAX_SHOWN = 10
"""Maximum number of segments that are shown."""

ALPHA = 0.01
"""The chance of a false alarm over all segments of a campaign."""


@dataclass(frozen=True, slots=True)
class SegmentStanding:
    """The devices of a segment. ``limit``: lower limit on its true share of failures, 0 to 1; 0: nothing is proven."""

    number: int
    labels: Mapping[str, object]
    waiting: int
    in_flight: int
    succeeded: int
    failed: int
    quarantined: bool
    limit: float = 0.0

    @property
    def sent(self) -> int:
        """The devices that were sent to. Those in flight count as not failed, since failures report first."""
        return self.in_flight + self.succeeded + self.failed

    @property
    def name(self) -> str:
        """Its labels, in words."""
        return group_text(self.labels) or "all devices"

    @property
    def text(self) -> str:
        """How it does, in words."""
        return f"{self.name}: {'under quarantine, ' if self.quarantined else ''}{self.standing_text}"

    @property
    def subject(self) -> str:
        """Its devices at the beginning of a sentence."""
        return f"devices with {self.name}" if group_text(self.labels) else self.name

    @property
    def standing_text(self) -> str:
        """How it does, in words, without its name."""
        share = f"{self.failed:,} of {self.succeeded + self.failed:,} failed"
        least = f", at least {percent(self.limit)} of all" if self.limit else ""
        return f"{share}{least}"

    def to_json(self) -> dict[str, Any]:
        """The segment as an element of ``segments`` of the overview."""
        names = ("number", "labels", "text", "waiting", "in_flight", "succeeded", "failed", "quarantined")
        return {name: getattr(self, name) for name in names}


def worst_first(segments: Sequence[SegmentStanding], *, of: int) -> list[SegmentStanding]:
    """The segments with their limits: first those under quarantine, then by the limit and the share of failures.

    ``of``: the number of all segments of the campaign. Each is judged with ``ALPHA`` divided by it.
    """
    limited = [replace(each, limit=_limit(each, ALPHA / max(1, of))) for each in segments]
    return sorted(limited, key=lambda each: (not each.quarantined, -each.limit, -_share(each), each.number))


def _share(segment: SegmentStanding) -> float:
    return segment.failed / segment.sent if segment.sent else 0.0


def _limit(segment: SegmentStanding, alpha: float) -> float:
    return sequential.bound((Prefix(segment.sent, segment.failed, segment.in_flight),), alpha).limit
