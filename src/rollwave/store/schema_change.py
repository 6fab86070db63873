"""Changes tables that are in use, without blocking other sessions for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from rollwave.store.database import Connection

LOCK_WAIT_SECONDS = 1.0
"""Seconds for which a change waits for a lock on a table, and for which it then pauses."""

MAX_LOCK_ATTEMPTS = 60
"""Maximum number of times that a change tries to get its locks."""


async def change_tables(connection: Connection, work: Callable[[], Awaitable[object]]) -> None:
    """Run ``work`` in one transaction, and again if it does not get a lock.

    While a transaction waits for a lock on a table, all later ones wait too, also those of workers. So it waits
    for a second only, and then lets the others continue.

    Raises:
        asyncpg.PostgresError: the error of ``work``, or that about the lock after ``MAX_LOCK_ATTEMPTS``.
    """
    for attempt in range(1, MAX_LOCK_ATTEMPTS + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {int(LOCK_WAIT_SECONDS * 1000)}")
                await work()
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == MAX_LOCK_ATTEMPTS:
                raise
            await asyncio.sleep(LOCK_WAIT_SECONDS)
