"""When a download's progress is worth a report."""

from __future__ import annotations

STEP = 10
"""Percent that are always worth one."""
INTERVAL = 1.0
"""Seconds after which any percent is."""


class Throttle:
    """Keeps reports to one for each ten percent, or one a second where that is slower."""

    def __init__(self) -> None:
        self._percent = 0
        self._at = 0.0

    def due(self, done: int, total: int | None, now: float) -> int | None:
        """The percent to report at ``now`` (seconds, any clock that only goes forward), or None."""
        if not total:
            return None
        percent = min(99, done * 100 // total)
        gained = percent - self._percent
        if gained >= STEP or (gained > 0 and now - self._at >= INTERVAL):
            self._percent, self._at = percent, now
            return percent
        return None
