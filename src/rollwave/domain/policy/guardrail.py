"""When a campaign must stop itself.

Fails closed: a rule that cannot be read is an error here, and the engine holds such a campaign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollwave.errors import UnreadableRow


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Trip when more than ``threshold`` (0 to 1) of at least ``min_completed`` finished devices failed."""

    threshold: float
    min_completed: int = 1

    @classmethod
    def read(cls, threshold: float | None, min_completed: int | None) -> Guardrail:
        """Check what a row holds.

        Raises:
            UnreadableRow: the threshold is missing, not a number or not within 0 to 1, or the minimum is below 1.
        """
        if threshold is None or not math.isfinite(threshold) or not 0 <= threshold <= 1:
            raise UnreadableRow(
                f"abort_threshold {threshold} is not within 0 to 1",
                hint="Set abort_threshold to a share of failures such as 0.1, then start the campaign again.",
            )
        if min_completed is None or min_completed < 1:
            raise UnreadableRow(
                f"abort_min_completed {min_completed} is below 1",
                hint="Set abort_min_completed to 1 or more, then start the campaign again.",
            )
        return cls(threshold, min_completed)

    def trips(self, succeeded: int, failed: int) -> bool:
        """Whether ``failed / (succeeded + failed)`` is strictly over the threshold, with enough finished."""
        finished = succeeded + failed
        return finished > 0 and finished >= self.min_completed and failed / finished > self.threshold

    def at_gate(self) -> Guardrail:
        """The same threshold where a wave has ended: its devices are the whole sample, however few."""
        return Guardrail(self.threshold, 1)
