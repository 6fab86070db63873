"""Calls to every worker that some campaign was moved, so that none has to wait until it asks by itself.

A call may be lost, and one too many does no harm: workers go on asking, only less often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rollwave.store.database import Pool, is_direct

CHANNEL = "rollwave_due"
"""Where the statement ``move`` calls."""

STILL_THERE_SECONDS = 10.0
"""Seconds between two looks whether the connection that listens still works."""


async def listen(pool: Pool, called: Callable[[], None]) -> None:
    """Run ``called`` at each call, until cancelled. Returns at once where a pooler would not pass calls on.

    Raises:
        CONNECTION_TROUBLE: the connection was lost.
    """
    async with pool.acquire() as connection:
        if not await is_direct(connection):
            return

        def hear(*_: object) -> None:
            called()

        await connection.add_listener(CHANNEL, hear)
        try:
            called()  # what came before was not heard
            while True:
                await asyncio.sleep(STILL_THERE_SECONDS)
                await connection.execute("SELECT", timeout=STILL_THERE_SECONDS)
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, hear)
