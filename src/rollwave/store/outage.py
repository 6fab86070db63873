"""Distinguishes an unavailable database, a temporary failure of a statement, and a programming error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from rollwave.errors import RollwaveError

CONNECTION_TROUBLE = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg's own error for a connection that ended between two steps
    asyncpg.TargetServerAttributeNotMatched,
)
"""The errors that a connection raises if it or a statement fails."""

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
"""The beginning of asyncpg's InterfaceError about a statement that was called with the wrong number of arguments."""


FOREIGN_TEXT = (asyncpg.UntranslatableCharacterError, asyncpg.CharacterNotInRepertoireError)
"""PostgreSQL's errors about a character that the database's encoding lacks. UTF8 has all characters."""


class ValueRefused(RollwaveError):
    """PostgreSQL, or a host's trigger in it, refused a value that a device sent."""


@contextmanager
def refusing_values() -> Iterator[None]:
    """Convert PostgreSQL's error about a value to ValueRefused, for a statement that writes values from devices.

    An error that the driver raises before the statement is sent is a programming error, and is not converted.

    Raises:
        ValueRefused: a type, a constraint or a host's trigger refuses a value. Trying again would not help.
    """
    try:
        yield
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.RaiseError) as error:
        if error.severity is None:  # only an error from the server has one
            raise
        raise ValueRefused(f"{type(error).__name__}: {error}") from error


@contextmanager
def refusing_foreign_text() -> Iterator[None]:
    """Convert PostgreSQL's error about a character that the database's encoding lacks to ValueRefused.

    Raises:
        ValueRefused: the text has such a character. This never happens in a database with UTF8.
    """
    try:
        yield
    except FOREIGN_TEXT as error:
        raise ValueRefused(f"{type(error).__name__}: {error}") from error


def is_away(error: BaseException) -> bool:
    """Whether the database is unavailable: it cannot be reached, or does not accept writes."""
    return isinstance(error, _AWAY) and not str(error).startswith(_ARGUMENTS)


def is_outage(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return is_away(error) or isinstance(error, _BUSY)


def in_words(error: BaseException) -> str:
    """The problem as a short text without address and login."""
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
    """A hint for an unavailable database. ``direct``: its URL is ROLLWAVE_DATABASE_DIRECT_URL."""
    url = "ROLLWAVE_DATABASE_DIRECT_URL" if direct else "DATABASE_URL, or in the host's pool"
    match error:
        case ValueError():  # asyncpg's, about a URL
            hint = f"Correct {url}: postgresql://user@host:5432/name, special characters of a password as %XX."
        case asyncpg.InterfaceError() if "pool is clos" in str(error):
            hint = "The process has closed its pool: cancel its users first, or pass an open pool."
        case asyncpg.InterfaceError() if "pool is not initialized" in str(error):
            hint = "Await the pool before passing it: pool = await asyncpg.create_pool(...)."
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            hint = f"Name the primary in {url}, or promote the replica. It is tried again until then."
        case asyncpg.TooManyConnectionsError():
            hint = "Raise max_connections of PostgreSQL, or make pools smaller. It is tried again until then."
        case asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError():
            hint = f"Check login and database name in {url}. It is tried again until then."
        case _:
            hint = f"Check that PostgreSQL runs, and the address in {url}. It is tried again until then."
    return hint
