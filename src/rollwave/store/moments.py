"""Converts times that statements return: seconds since 1970 in UTC, in columns named ``at`` or ``…_at``.

Neither a pool's codecs nor a session's time zone changes a number. A host's column without a time zone contains UTC by
agreement, and ``EXTRACT(epoch ...)`` reads it as UTC (ADR 30).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import asyncpg

    from rollwave.store.time_limits import Connection

Document: TypeAlias = dict[str, Any]
"""A row on its way to an answer of the API: column to value, times as datetimes in UTC.

The schema of the same noun in ``api/schemas`` says which keys it has, and checks it. Code that decides by a row reads
it into a class.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """The time ``seconds`` after 1970, exact to the microsecond, or the nearest one that a datetime can represent."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # PostgreSQL also has years after 9999, and infinity
        return _LAST if seconds > 0 else _FIRST


async def now(connection: Connection) -> datetime:
    """The present time by the database's clock, which all rules about time use."""
    seconds: float = await connection.fetchval("SELECT EXTRACT(epoch FROM statement_timestamp())::float8")
    return moment(seconds)


def with_moments(row: Mapping[str, Any] | asyncpg.Record) -> Document:
    """The row, with its times as datetimes in UTC."""
    return {name: moment(value) if _is_time(name) and value is not None else value for name, value in row.items()}


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith("_at")
