"""Listener slots: a numbered lock that PostgreSQL frees when its holder dies."""

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

_LOCK_CLASS = 0x726F6C77  # "rolw": keeps our advisory locks apart from a host's
_TIMEOUT_SECONDS = 5.0

PULSE_SECONDS = 2.0
"""Seconds between two signs of life of a slot's holder."""

CONTINUOUS_SECONDS = 15.0
"""Seconds without a beat that make a gap in listening. A handover is quicker than that."""

TAKEOVER_SECONDS = 20.0
"""Seconds without a listener after which nothing more is sent. A worker takes over from one that froze in less:
PostgreSQL ends the frozen worker's lock after ``CONTINUOUS``, and the others try for it once a second."""

_NO_TENANT = "SET LOCAL app.tenant_id = ''"

_sql = load("listeners")


class Lock:
    """A slot's lock, held by one connection for as long as that lives."""

    def __init__(self, connection: Connection, slot: int) -> None:
        self._connection = connection
        self._slot = slot

    async def announce(self) -> str | None:
        """Tell the database that the slot is about to be listened to, so that no command goes out before it is.

        Returns what its session in the broker was subscribed to last; None: nothing yet.
        """
        async with as_engine(self._connection, _NO_TENANT, timeout=_TIMEOUT_SECONDS, holds_lock=True):
            topic_filter: str | None = await self._connection.fetchval(
                _sql["coming"], self._slot, timeout=_TIMEOUT_SECONDS
            )
        return topic_filter

    async def keep(self) -> None:
        """Stay the holder, without saying that the slot is listened to."""
        await self._connection.execute("SELECT", timeout=_TIMEOUT_SECONDS)

    async def beat(self, topic_filter: str) -> None:
        """Tell the database that the slot is listened to now."""
        async with as_engine(self._connection, _NO_TENANT, timeout=_TIMEOUT_SECONDS, holds_lock=True):
            await self._connection.execute(
                _sql["beat"], self._slot, CONTINUOUS_SECONDS, topic_filter, timeout=_TIMEOUT_SECONDS
            )

    async def listen(self, topic_filter: str, beaten: Callable[[], None]) -> None:
        """Go on telling it, until cancelled or the connection, and the lock, is gone. ``beaten`` is run each time."""
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
    """Hold a slot for the block, on a connection of its own; None: another worker has it.

    PostgreSQL ends the connection, and frees the slot, after ``idle_seconds`` without a statement.

    Raises:
        ConfigurationError: the connection leads through a pooler. The lock belongs to a session, and would not hold.
    """
    async with pool.acquire() as connection:
        if not await is_direct(connection):
            raise ConfigurationError(
                "the listener's lock would go through a connection pooler, and would not hold", hint=DIRECT
            )
        try:
            # A holder that is frozen, or gone without a word, must not keep the slot, wherever it was just then.
            took = await connection.fetchval(
                _sql["take"], _LOCK_CLASS, slot, int(idle_seconds), timeout=_TIMEOUT_SECONDS
            )
            yield Lock(connection, slot) if took else None
        finally:
            # Also where no answer came in time: the lock may have been taken, and the pool leaves sessions as they are.
            await _unlock(connection)


async def _unlock(connection: Connection) -> None:
    try:
        async with given_up_after(_TIMEOUT_SECONDS, connection):
            await connection.reset()
    except CONNECTION_TROUBLE:
        give_up(connection)  # the lock ends with the session


@dataclass(frozen=True, slots=True)
class Listening:
    """Seconds for which every slot has been listened to: but for short gaps, and by those who listen now."""

    without_gap: float
    subscribed: float


async def listening(connection: Connection, slots: int) -> Listening | None:
    """For how long devices have been heard; None: not now."""
    row = await connection.fetchrow(_sql["listening"], slots, CONTINUOUS_SECONDS, _LOCK_CLASS)
    return Listening(row["without_gap"], row["subscribed"]) if row else None


async def heard(connection: Connection, slots: int) -> bool:
    """Whether reports can come in, so that commands may go out: every slot is listened to, or was a moment ago.

    False while a listener is about to subscribe: an answer that a device gives at once might find nobody.
    """
    listened_to: bool = await connection.fetchval(_sql["heard"], slots, TAKEOVER_SECONDS)
    return listened_to


async def unheard_for(pool: Pool, slots: int) -> float | None:
    """Seconds since every slot was listened to; infinite: never. None: commands may go out now, as ``heard`` says."""
    async with system_transaction(pool) as connection:
        if await heard(connection, slots):
            return None
        seconds: float = await connection.fetchval(_sql["unheard_for"], slots)
    return seconds
