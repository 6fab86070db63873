"""Changing tables that are in use, without making their users wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from rollwave.store.database import Connection

LOCK_WAIT_SECONDS = 1.0
"""Seconds for which a change waits for a lock on a table, and for which it then lets others go first."""

MAX_LOCK_ATTEMPTS = 60
"""Maximum number of times that a change tries to get its locks."""


async def change_tables(connection: Connection, work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work`` in one transaction, again where it does not get a lock.

    A transaction that waits for a table makes all later ones wait for it too, those of workers among them. So it waits
    for a second only, and then lets them go first.

    Raises:
        asyncpg.PostgresError: what ``work`` raised; the error about the lock after ``MAX_LOCK_ATTEMPTS``.
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
