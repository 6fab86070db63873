"""Limits the time of every wait for PostgreSQL: a host's pool may have no timeout, and asyncpg then waits for ever.

A network may lose data and keep the connection open. Then PostgreSQL's own timeouts have no effect on this side.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

STATEMENT_TIMEOUT_SECONDS = 30.0
"""Seconds after which PostgreSQL cancels one of our statements; a transaction may set its own."""

SCAN_TIMEOUT_SECONDS = 600.0
"""The same for a transaction that reads every row of a campaign or a group."""

ANSWER_SECONDS = STATEMENT_TIMEOUT_SECONDS + 5
"""Maximum number of seconds to wait for the answer to a statement. PostgreSQL cancels the statement before."""

LEAVING_SECONDS = 3.0
"""Maximum number of seconds for a rollback, and for the reset of a connection that is returned to its pool."""


class Answered:
    """A connection whose statements fail after ``ANSWER`` seconds, unless they say for themselves when."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: str, *args: Any, timeout: float = ANSWER_SECONDS) -> Coroutine[Any, Any, Any]:
        """As asyncpg's."""
        return self._connection.execute(query, *args, timeout=timeout)

    def executemany(self, command: str, args: Any, *, timeout: float = ANSWER_SECONDS) -> Coroutine[Any, Any, Any]:
        """As asyncpg's."""
        return self._connection.executemany(command, args, timeout=timeout)

    def fetch(self, query: str, *args: Any, timeout: float = ANSWER_SECONDS) -> Coroutine[Any, Any, Any]:
        """As asyncpg's."""
        return self._connection.fetch(query, *args, timeout=timeout)

    def fetchrow(self, query: str, *args: Any, timeout: float = ANSWER_SECONDS) -> Coroutine[Any, Any, Any]:
        """As asyncpg's."""
        return self._connection.fetchrow(query, *args, timeout=timeout)

    def fetchval(self, query: str, *args: Any, timeout: float = ANSWER_SECONDS) -> Coroutine[Any, Any, Any]:
        """As asyncpg's, for the first column."""
        return self._connection.fetchval(query, *args, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def answered(connection: Connection) -> Connection:
    """Wrap ``connection`` for the statements of one transaction."""
    return cast("Connection", Answered(connection))


def give_up(connection: Connection) -> None:
    """Close a connection that does not answer. Its pool opens another one."""
    with suppress(asyncpg.InterfaceError):  # it is closed, and has left its pool
        connection.terminate()


@asynccontextmanager
async def given_up_after(seconds: float, connection: Connection) -> AsyncIterator[None]:
    """Limit the time of the block. If it takes longer or is cancelled, the connection is closed.

    asyncpg would wait without a limit until PostgreSQL confirms that the statement is cancelled.

    Raises:
        TimeoutError: the block took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, asyncio.CancelledError):
        give_up(connection)
        raise


async def give_back(borrowed: AbstractAsyncContextManager[Connection], connection: Connection) -> None:
    """Return a connection of ``pool.acquire()`` to its pool. A connection that cannot be reset is closed.

    Raises:
        TimeoutError: there was no answer.
    """
    try:
        async with asyncio.timeout(LEAVING_SECONDS):
            await borrowed.__aexit__(None, None, None)
    except (TimeoutError, asyncio.CancelledError):
        give_up(connection)
        raise
