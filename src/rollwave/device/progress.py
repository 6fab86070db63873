"""Limits how often the progress of a download is reported."""

from __future__ import annotations

STEP = 10
"""Percentage points of progress after which a report is always sent."""
INTERVAL = 1.0
"""Time in seconds after which any progress is reported."""


class Throttle:
    """Allows a report for each ten percent, and at most one a second for less progress than that."""

    def __init__(self) -> None:
        self._percent = 0
        self._at = 0.0

    def due(self, done: int, total: int | None, now: float) -> int | None:
        """The percentage to report now, 0 to 99, or None.

        Args:
            done: bytes received.
            total: bytes in total; None: unknown.
            now: seconds of any monotonic clock.
        """
        if not total:
            return None
        percent = min(99, done * 100 // total)
        gained = percent - self._percent
        if gained >= STEP or (gained > 0 and now - self._at >= INTERVAL):
            self._percent, self._at = percent, now
            return percent
        return None
