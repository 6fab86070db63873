"""Reports before commands: who has not heard yet how the last devices fared sends the next ones slowly.

Both are work of one process. Were they equals, a report of failure would wait behind commands that it may forbid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

REPORTS_NOT_WAITED_FOR = 250
"""Reports in hand that are soon written, and wait for nobody."""

LONGEST_PAUSE_SECONDS = 0.03
"""Seconds for which sending gives way at a time."""


class Backpressure:
    """Shared by a worker's listeners and its sender."""

    def __init__(self, *, longest_pause: float = LONGEST_PAUSE_SECONDS) -> None:
        """``longest_pause``: seconds for which sending gives way at a time."""
        self._longest_pause = longest_pause
        self._reports = 0
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    @contextmanager
    def hearing(self, reports: int) -> Iterator[None]:
        """So many reports are in hand for the length of the block, and written at its end."""
        self._add(reports)
        try:
            yield
        finally:
            self._add(-reports)

    async def give_way(self) -> None:
        """Let others in this process have their turn; while reports wait, for longer."""
        if self._caught_up.is_set():
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._caught_up.wait(), self._longest_pause)

    def _add(self, reports: int) -> None:
        self._reports += reports
        if self._reports > REPORTS_NOT_WAITED_FOR:
            self._caught_up.clear()
        else:
            self._caught_up.set()
