"""Listener slots: numbered locks that PostgreSQL frees when their holders die; and whether all have listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from rollwave.errors import ConfigurationError
from rollwave.store.database import Connection, Pool, as_engine, is_direct, system_transaction
from rollwave.store.outage import CONNECTION_TROUBLE
from rollwave.store.queries import load
from rollwave.store.time_limits import give_up, given_up_after
from rollwave.store.url import DIRECT

_LOCK_CLASS = 0x726F6C77  # "rolw", to distinguish our advisory locks from a host's
_TIMEOUT_SECONDS = 5.0

PULSE_SECONDS = 2.0
"""Seconds between two beats (signs of life) of a slot's holder."""

CONTINUOUS_SECONDS = 15.0
"""Seconds without a beat after which listening counts as interrupted. A handover takes less time."""

TAKEOVER_SECONDS = 20.0
"""Seconds without a listener after which nothing more is sent. Another worker takes over from a frozen one before that:
PostgreSQL releases the frozen worker's lock after ``CONTINUOUS_SECONDS``, and the others try to take it each second."""

_NO_TENANT = "SET LOCAL app.tenant_id = ''"

_sql = load("listeners")


class Lock:
    """A slot's lock. Its connection has it until it ends."""

    def __init__(self, connection: Connection, slot: int) -> None:
        self._connection = connection
        self._slot = slot

    async def announce(self) -> str | None:
        """Record that this worker is about to subscribe, so that no command is sent before it has.

        Returns the last subscription of the slot's session in the broker; None: there was none.
        """
        async with as_engine(self._connection, _NO_TENANT, timeout=_TIMEOUT_SECONDS, holds_lock=True):
            topic_filter: str | None = await self._connection.fetchval(
                _sql["coming"], self._slot, timeout=_TIMEOUT_SECONDS
            )
        return topic_filter

    async def keep(self) -> None:
        """Keep the lock, without recording a beat."""
        await self._connection.execute("SELECT", timeout=_TIMEOUT_SECONDS)

    async def beat(self, topic_filter: str) -> None:
        """Record that the slot is subscribed now."""
        async with as_engine(self._connection, _NO_TENANT, timeout=_TIMEOUT_SECONDS, holds_lock=True):
            await self._connection.execute(
                _sql["beat"], self._slot, CONTINUOUS_SECONDS, topic_filter, timeout=_TIMEOUT_SECONDS
            )

    async def listen(self, topic_filter: str, beaten: Callable[[], None]) -> None:
        """Record beats until cancelled, or until the connection and its lock are lost. Calls ``beaten`` after each."""
        try:
            while True:
                await self.beat(topic_filter)
                beaten()
                await asyncio.sleep(PULSE_SECONDS)
        except CONNECTION_TROUBLE:
            return
        finally:
            with suppress(*CONNECTION_TROUBLE):
                async with as_engine(self._connection, _NO_TENANT, timeout=_TIMEOUT_SECONDS, holds_lock=True):
                    await self._connection.execute(_sql["hush"], self._slot, timeout=_TIMEOUT_SECONDS)


@asynccontextmanager
async def acquire_slot(
    pool: Pool, slot: int, *, idle_seconds: float = CONTINUOUS_SECONDS
) -> AsyncIterator[Lock | None]:
    """Hold a slot during the block, on a separate connection. None: another worker has the slot.

    PostgreSQL ends the connection, and releases the slot, after ``idle_seconds`` without a statement.

    Raises:
        ConfigurationError: the connection leads through a pooler. The lock belongs to a session, and would be lost.
    """
    async with pool.acquire() as connection:
        if not await is_direct(connection):
            raise ConfigurationError(
                "the listener's lock would go through a connection pooler, and would not hold", hint=DIRECT
            )
        try:
            # A holder that is frozen or vanished must not keep the slot, whatever it was doing.
            took = await connection.fetchval(
                _sql["take"], _LOCK_CLASS, slot, int(idle_seconds), timeout=_TIMEOUT_SECONDS
            )
            yield Lock(connection, slot) if took else None
        finally:
            # Also if there was no answer in time: the lock may have been taken, and the pool does not reset sessions.
            await _unlock(connection)


async def _unlock(connection: Connection) -> None:
    try:
        async with given_up_after(_TIMEOUT_SECONDS, connection):
            await connection.reset()
    except CONNECTION_TROUBLE:
        give_up(connection)  # the lock ends with the session


@dataclass(frozen=True, slots=True)
class Listening:
    """Seconds for which every slot has been subscribed: without a long gap, and by its present listener."""

    without_gap: float
    subscribed: float


async def listening(connection: Connection, slots: int) -> Listening | None:
    """Read for how long every slot has been subscribed; None: not all are now."""
    row = await connection.fetchrow(_sql["listening"], slots, CONTINUOUS_SECONDS, _LOCK_CLASS)
    return Listening(row["without_gap"], row["subscribed"]) if row else None


async def unheard_for(pool: Pool, slots: int) -> float | None:
    """Seconds since every slot was last subscribed; infinite: never. None: commands may be sent now."""
    async with system_transaction(pool) as connection:
        if await connection.fetchval(_sql["heard"], slots, TAKEOVER_SECONDS):
            return None
        seconds: float = await connection.fetchval(_sql["unheard_for"], slots)
    return seconds
