"""Telling "the database is away" from "it could not do this just now", and both from "the program is wrong"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from rollwave.errors import RollwaveError

CONNECTION_TROUBLE = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg's own, of a connection that ended between two of its steps
    asyncpg.TargetServerAttributeNotMatched,
)
"""All that a connection raises when it, or what it is asked, fails."""

_AWAY = (
    OSError,  # refused, unreachable, timed out
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,  # starting up, or stopping
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,  # of a worker that was let in before
    asyncpg.InvalidCatalogNameError,  # being restored
    asyncpg.ReadOnlySQLTransactionError,  # a replica, or demoted to one
    asyncpg.TargetServerAttributeNotMatched,  # nothing but replicas
    asyncpg.InterfaceError,  # the connection or the pool is closed
    asyncpg.InternalClientError,  # or was being closed just then
)

_BUSY = (
    asyncpg.OperatorInterventionError,  # cancelled
    asyncpg.InsufficientResourcesError,  # no memory or disk left
    asyncpg.TransactionRollbackError,  # lost to a concurrent transaction
    asyncpg.LockNotAvailableError,
)


_ARGUMENTS = "the server expects"
"""How asyncpg begins its InterfaceError about a statement that was called with the wrong number of arguments."""


FOREIGN_TEXT = (asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError)
"""What PostgreSQL raises about a character that the database's encoding does not have; UTF8 has all of them."""


class ValueRefused(RollwaveError):
    """PostgreSQL, or a host's trigger in it, refused a value that a device sent."""


@contextmanager
def refusing_values() -> Iterator[None]:
    """For one statement that writes what devices sent: PostgreSQL's error about a value becomes ValueRefused.

    An error that the driver raises before the statement is sent is a programming error, and stays what it is.

    Raises:
        ValueRefused: the value, a constraint or a host's trigger does not allow it. Trying again would not help.
    """
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError) as error:
        if error.severity is None:  # only a message of the server has one
            raise
        raise ValueRefused(f"{type(error).__name__}: {error}") from error


@contextmanager
def refusing_foreign_text() -> Iterator[None]:
    """For a statement with text in it: a character that the database's encoding does not have is a value refused.

    Raises:
        ValueRefused: there is one. Only a database in another encoding than UTF8 refuses any.
    """
    try:
        yield
    except FOREIGN_TEXT as error:
        raise ValueRefused(f"{type(error).__name__}: {error}") from error


def is_away(error: BaseException) -> bool:
    """Whether the server cannot be reached, or is none that can be written to."""
    return isinstance(error, _AWAY) and not str(error).startswith(_ARGUMENTS)


def is_outage(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    return is_away(error) or isinstance(error, _BUSY)


def in_words(error: BaseException) -> str:
    """What is wrong, for anybody to read: no address, no login."""
    match error:
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            return "only a replica answers, which cannot be written to"
        case TimeoutError():
            return "it does not answer in time"
        case asyncpg.TooManyConnectionsError():
            return "it has no connection left"
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            return "it does not let this login in"
        case asyncpg.CannotConnectNowError():
            return "it is starting or stopping"
        case _:
            return "cannot be reached"


def hint_of(error: BaseException, *, direct: bool = False) -> str:
    """What to do about a database that is away. ``direct``: its URL is ROLLWAVE_DATABASE_DIRECT_URL."""
    url = "ROLLWAVE_DATABASE_DIRECT_URL" if direct else "DATABASE_URL, or in the host's pool"
    match error:
        case ValueError():  # asyncpg's, about a URL
            hint = f"Correct {url}: postgresql://user@host:5432/name, special characters of a password as %XX."
        case asyncpg.InterfaceError() if "pool is clos" in str(error):
            hint = "The process has closed its pool: cancel what uses it first, or hand over a pool that is open."
        case asyncpg.InterfaceError() if "pool is not initialized" in str(error):
            hint = "Await the pool before it is handed over: pool = await asyncpg.create_pool(...)."
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            hint = f"Name the primary in {url}, or promote the replica. It is tried again until then."
        case asyncpg.TooManyConnectionsError():
            hint = "Raise max_connections of PostgreSQL, or make pools smaller. It is tried again until then."
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            hint = f"Check login and database name in {url}. It is tried again until then."
        case _:
            hint = f"Check that PostgreSQL runs, and the address in {url}. It is tried again until then."
    return hint
