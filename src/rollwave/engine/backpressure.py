"""Backpressure: while reports wait to be committed, commands are sent more slowly.

Listeners and dispatch share one process. Without this, a reported failure that stops a campaign would wait while more
commands of that campaign are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MAX_WAITING_REPORTS = 250
"""Number of uncommitted reports up to which sending does not slow down."""

MAX_PAUSE_SECONDS = 0.03
"""Maximum length of one pause of sending."""


class Backpressure:
    """Shared by the listeners and the dispatch of one worker."""

    def __init__(self, max_pause_seconds: float = MAX_PAUSE_SECONDS) -> None:
        self._max_pause_seconds = max_pause_seconds
        self._reports = 0
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    @contextmanager
    def hearing(self, reports: int) -> Iterator[None]:
        """Count ``reports`` as uncommitted during the block."""
        self._add(reports)
        try:
            yield
        finally:
            self._add(-reports)

    async def give_way(self) -> None:
        """Let other tasks run. While too many reports are uncommitted, wait for up to the maximum pause."""
        if self._caught_up.is_set():
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._caught_up.wait(), self._max_pause_seconds)

    def _add(self, reports: int) -> None:
        self._reports += reports
        if self._reports > MAX_WAITING_REPORTS:
            self._caught_up.clear()
        else:
            self._caught_up.set()
