"""Changing tables that others use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from rollwave.store.database import Connection

LOCK_WAIT, LOCK_ATTEMPTS = 1.0, 60
"""Seconds for which a change waits for a table that others use before it lets them go first; number of tries."""


async def patiently(connection: Connection, work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work`` in one transaction, again where it does not get a lock.

    Whoever waits for a table makes all others wait for it too, workers among them. So it waits for a moment only,
    and then lets them go first.

    Raises:
        asyncpg.PostgresError: what ``work`` raised; that of the lock after ``LOCK_ATTEMPTS``.
    """
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {int(LOCK_WAIT * 1000)}")
                await work()
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == LOCK_ATTEMPTS:
                raise
            await asyncio.sleep(LOCK_WAIT)
