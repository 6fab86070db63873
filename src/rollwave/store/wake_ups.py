"""Wake-ups of the workers, which follow changes of campaigns (``campaigns.move`` and ``campaigns.wake``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rollwave.store.database import Pool, is_direct

CHANNEL = "rollwave_due"
"""The channel that these statements notify."""

STILL_THERE_SECONDS = 10.0
"""Seconds between two checks of the connection that receives wake-ups."""


async def hear(pool: Pool, wake: Callable[[str], None]) -> None:
    """Call ``wake`` at each wake-up, until cancelled. Returns immediately behind a pooler, which passes none on.

    Its argument is the tenant of which every campaign is to be looked at, or empty: only those that changed their
    status. A lost or an extra wake-up does no harm, since workers also query once a second.

    Raises:
        CONNECTION_TROUBLE: the connection was lost.
    """
    async with pool.acquire() as connection:
        if not await is_direct(connection):
            return

        def hear(_connection: object, _process: int, _channel: str, tenant_id: object) -> None:
            wake(str(tenant_id))

        await connection.add_listener(CHANNEL, hear)
        try:
            wake("")  # wake-ups before this were missed
            while True:
                await asyncio.sleep(STILL_THERE_SECONDS)
                await connection.execute("SELECT", timeout=STILL_THERE_SECONDS)
        finally:
            if not connection.is_closed():
                await connection.remove_listener(CHANNEL, hear)
