"""Wake-ups: NOTIFY tells every worker that a campaign was moved, so that none waits until it asks by itself.

A wake-up may be lost, and one too many does no harm: workers go on asking, only less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rollwave.store.database import Pool, is_direct

CHANNEL = "rollwave_due"
"""The channel that the statement ``campaigns.move`` notifies."""

STILL_THERE_SECONDS = 10.0
"""Seconds between two checks that the connection that listens still works."""


async def listen(pool: Pool, wake: Callable[[], None]) -> None:
    """Run ``wake`` at each wake-up, until cancelled. Returns at once behind a pooler, which passes none on.

    Raises:
        CONNECTION_TROUBLE: the connection was lost.
    """
    async with pool.acquire() as connection:
        if not await is_direct(connection):
            return

        def hear(*_: object) -> None:
            wake()

        await connection.add_listener(CHANNEL, hear)
        try:
            wake()  # what came before was not heard
            while True:
                await asyncio.sleep(STILL_THERE_SECONDS)
                await connection.execute("SELECT", timeout=STILL_THERE_SECONDS)
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, hear)
