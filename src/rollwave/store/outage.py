"""Telling "the database is away" from "the program is wrong"."""

from __future__ import annotations

import asyncpg

_OUTAGES = (
    OSError,  # refused, unreachable, timed out
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, cancelled
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left
    asyncpg.TransactionRollbackError,  # lost to a concurrent transaction
    asyncpg.InterfaceError,  # the connection or the pool is closed
)


def is_outage(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    # A value that cannot be sent is an InterfaceError too, and will never succeed.
    return isinstance(error, _OUTAGES) and not isinstance(error, asyncpg.DataError)
