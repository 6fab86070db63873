"""Things that may be away: asked for ever less often until they are back, and spoken of once a change."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 5.0
"""Seconds between two tries while it is away, at first and at most."""

ONE_TRY_SECONDS = 10.0
"""Seconds that one try is waited for, before somebody else may try too."""


class Breaker:
    """Whether something that many need is away. While it is, one asks for all, and the others are refused at once."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0
        self._next_try = 0.0
        self._worked_at = 0.0
        self._failed_at = 0.0

    @property
    def away_for(self) -> float | None:
        """Seconds since it was first found away; None: it is there, as far as is known."""
        return time.monotonic() - self._since if self._failures else None

    @property
    def pause(self) -> float:
        """Seconds until it may be asked for again."""
        return max(0.0, self._next_try - time.monotonic()) if self._failures else 0.0

    def admits(self) -> bool:
        """Whether to try now. Who is let in while it is away tries for all others."""
        if not self._failures:
            return True
        if self.pause:
            return False
        self._next_try = time.monotonic() + ONE_TRY_SECONDS
        return True

    def failed(self, began: float | None = None) -> bool:
        """A try failed. Returns whether that is news. One that ``began`` before the last that worked proves nothing."""
        now = time.monotonic()
        if began is not None and began < self._worked_at:
            return False
        self._failed_at = now
        news = not self._failures
        if news:
            self._since = now
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        # Jitter, so that many workers do not come back in step.
        self._next_try = now + pause * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
        return news

    def undecided(self) -> None:
        """A try was broken off, or ended for another reason: somebody else may try."""
        self._next_try = min(self._next_try, time.monotonic())

    def worked(self, began: float | None = None) -> float | None:
        """It is there. Returns for how many seconds it was away, if it was.

        A try that ``began`` before the last that failed proves nothing.
        """
        if self._failures and began is not None and began < self._failed_at:
            self.undecided()
            return None
        away_for = self.away_for
        self._failures = 0
        self._worked_at = time.monotonic()
        return away_for
