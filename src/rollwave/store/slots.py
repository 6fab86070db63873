"""Listener slots: a numbered lock that PostgreSQL frees when its holder dies, and this database's own name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from rollwave.store.database import Connection, Pool, system_transaction

_LOCK_CLASS = 0x726F6C77  # "rolw": keeps our advisory locks apart from a host's
_PULSE = 2.0
_PATIENCE = 5.0


class Lock:
    """A slot's lock, held by one connection for as long as that lives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lost(self) -> None:
        """Return once the connection, and with it the lock, is gone."""
        try:
            while True:
                await asyncio.sleep(_PULSE)
                await self._connection.execute("SELECT 1", timeout=_PATIENCE)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return


@asynccontextmanager
async def hold(pool: Pool, slot: int) -> AsyncIterator[Lock | None]:
    """Hold a slot for the block, on a connection of its own; None: another worker has it.

    The lock belongs to a session: behind PgBouncer this connection must be a direct one.
    """
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _LOCK_CLASS, slot):
            yield None
            return
        try:
            yield Lock(connection)
        finally:
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", _LOCK_CLASS, slot)


async def installation(pool: Pool) -> str:
    """What tells this database's sessions from those of another Rollwave on the same broker: 12 hex digits."""
    async with system_transaction(pool) as connection:
        name: str = await connection.fetchval("SELECT left(replace(id::text, '-', ''), 12) FROM rollwave_installation")
    return name
