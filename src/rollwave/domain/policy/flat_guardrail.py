"""The guardrail of a campaign with flat columns: a share of failed devices, and the devices from which it is judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollwave.errors import UnreadableRow


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Trips if at least ``min_completed`` devices have finished and a share above ``threshold`` (0 to 1) has failed."""

    threshold: float
    min_completed: int = 1

    @classmethod
    def read(cls, threshold: float | None, min_completed: int | None) -> Guardrail:
        """Check the values of a row.

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
        """Whether enough devices have finished, and ``failed / (succeeded + failed)`` is above the threshold."""
        finished = succeeded + failed
        return finished > 0 and finished >= self.min_completed and failed / finished > self.threshold

    def at_gate(self) -> Guardrail:
        """The guardrail at the end of a wave: the same threshold, for any number of finished devices."""
        return Guardrail(self.threshold, 1)
