"""Reports before commands: who has not heard yet how the last devices fared sends the next ones slowly.

Both are work of one process. Were they equals, a report of failure would wait behind commands that it may forbid.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

FEW = 250
"""Reports in hand that are soon written, and wait for nobody."""

LONGEST = 0.05
"""Seconds for which sending gives way at a time."""


class Precedence:
    """Shared by a worker's listeners and its sender."""

    def __init__(self) -> None:
        self._behind: set[int] = set()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    def note(self, slot: int, reports: int) -> None:
        """So many reports are in hand in this listener's slot and not written."""
        if reports > FEW:
            self._behind.add(slot)
            self._caught_up.clear()
        else:
            self._behind.discard(slot)
            if not self._behind:
                self._caught_up.set()

    async def give_way(self) -> None:
        """Let others in this process have their turn; while reports wait, for longer."""
        if self._caught_up.is_set():
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._caught_up.wait(), LONGEST)
