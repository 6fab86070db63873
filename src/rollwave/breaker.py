"""Circuit breaker: one caller probes, with growing pauses; outage and recovery are logged once each."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 5.0
"""Seconds between two probes during an outage: at first, and at most."""

ONE_TRY_SECONDS = 10.0
"""Maximum time for a probe, in seconds. After it, another caller may probe too."""


class Breaker:
    """Whether a shared resource is unavailable. While it is, one caller probes, and the others are refused at once."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._next_try = 0.0
        self._worked_at = 0.0
        self._failed_at = 0.0

    @property
    def away_for(self) -> float | None:
        """Seconds since the outage was noticed. None: no outage is known."""
        return time.monotonic() - self._since if self._failures else None

    @property
    def pause(self) -> float:
        """Seconds until the next probe is allowed."""
        return max(0.0, self._next_try - time.monotonic()) if self._failures else 0.0

    def admits(self) -> bool:
        """Whether the caller may try now. During an outage, the caller that may try probes for all others."""
        if not self._failures:
            return True
        if self.pause:
            return False
        self._next_try = time.monotonic() + ONE_TRY_SECONDS
        return True

    def failed(self, began: float | None = None) -> bool:
        """An attempt failed. Returns whether an outage begins with it.

        An attempt that ``began`` before the last success is ignored.
        """
        now = time.monotonic()
        if began is not None and began < self._worked_at:
            return False
        self._failed_at = now
        is_first = not self._failures
        if is_first:
            self._since = now
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        # Jitter, so that many workers do not come back in step.
        self._next_try = now + pause * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
        return is_first

    def undecided(self) -> None:
        """A probe was cancelled, or failed for another reason: another caller may probe."""
        self._next_try = min(self._next_try, time.monotonic())

    def worked(self, began: float | None = None) -> float | None:
        """An attempt succeeded. Returns the seconds of the outage that ended with it, or None.

        An attempt that ``began`` before the last failure is ignored.
        """
        if self._failures and began is not None and began < self._failed_at:
            self.undecided()
            return None
        away_for = self.away_for
        self._failures = 0
        self._worked_at = time.monotonic()
        return away_for
