"""A circuit breaker around a pool: one caller probes an unavailable database, with growing pauses, and logs it once."""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import asyncpg

from rollwave.breaker import Breaker
from rollwave.errors import DatabaseUnavailable
from rollwave.log import get_logger, report
from rollwave.store.database import Pool
from rollwave.store.outage import hint_of, in_words, is_away
from rollwave.store.queries import load
from rollwave.store.time_limits import LEAVING_SECONDS, give_back, given_up_after

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_log = get_logger("database")


_sql = load("guarded_pool")

DIRECT = "direct"
"""Name in the log of the pool that bypasses a pooler."""


class StillAway(ConnectionError):
    """The database was unavailable at the last probe, and the next one is not due yet."""


class GuardedPool:
    """Wraps a host's pool or ours. Every statement of the engine goes through it."""

    def __init__(self, pool: Pool, way: str) -> None:
        self._pool = pool
        self._way = way
        self._log = _log.bind(connection=way)
        self._breaker = Breaker()
        self._words = ""

    @property
    def trouble(self) -> str:
        """The present problem and since when; empty: none is known."""
        away_for = self._breaker.away_for
        return "" if away_for is None else f"{self._words}, for {away_for:.0f} s"

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[PoolConnectionProxy[asyncpg.Record]]:
        """A connection for the block.

        Raises:
            StillAway: the database is known to be unavailable, and the next probe is not due yet.
        """
        if not self._breaker.admits():
            raise StillAway(f"PostgreSQL: {self.trouble}")
        began = time.monotonic()
        try:
            borrowed = self._pool.acquire(timeout=timeout)
            connection = await borrowed.__aenter__()
            try:
                if self._breaker.away_for is not None:
                    await _require_primary(connection)
                yield connection
            finally:
                await give_back(borrowed, connection)
        except BaseException as error:
            await self._note(error, began)
            raise
        self._worked(began)

    async def _note(self, error: BaseException, began: float) -> None:
        if is_away(error):
            self._words = in_words(error)
            if self._breaker.failed(began):
                # asyncpg's message about a URL quotes it, also the password.
                text = "the URL cannot be read" if isinstance(error, ValueError) else str(error)
                said = f"{type(error).__name__}: {text}"
                hint = hint_of(error, direct=self._way == DIRECT)
                report(self._log, "ota_database_unavailable", DatabaseUnavailable(said, hint=hint))
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                # Every connection of the pool leads to that server, and another one may have been promoted.
                await self._pool.expire_connections()
        elif isinstance(error, asyncpg.PostgresError):
            self._worked(began)  # it has answered
        else:
            self._breaker.undecided()

    def _worked(self, began: float) -> None:
        away_for = self._breaker.worked(began)
        if away_for is not None:
            self._log.info("ota_database_back", away_for=round(away_for, 1))


async def _require_primary(connection: PoolConnectionProxy[asyncpg.Record]) -> None:
    """Require a server that accepts writes. A replica answers too, but the database is still unavailable then."""
    async with given_up_after(LEAVING_SECONDS, connection):
        await connection.execute("BEGIN")  # a pooler may give each transaction another session
        takes_no_writes = await connection.fetchval(_sql["read_only"])
        await connection.execute("COMMIT")
    if takes_no_writes:
        raise asyncpg.ReadOnlySQLTransactionError("the server takes no writes")


def guarded(pool: Pool | GuardedPool, way: str = "pool") -> Pool:
    """``pool`` behind a circuit breaker, with the methods that the engine uses. ``way``: its name in the log."""
    return cast("Pool", pool if isinstance(pool, GuardedPool) else GuardedPool(pool, way))


def trouble(pool: Pool | GuardedPool) -> str:
    """The known problem of the database behind ``pool``, without secrets; empty: none."""
    return pool.trouble if isinstance(pool, GuardedPool) else ""


def belongs_to(pool: Pool, loop: AbstractEventLoop) -> bool:
    """Whether ``pool`` belongs to ``loop``, or its loop is unknown: asyncpg keeps it in a private attribute."""
    return getattr(pool, "_loop", None) in {None, loop}
