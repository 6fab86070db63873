"""Checks that a host's pool does not change values of the few types that statements exchange (ADR 30)."""

from __future__ import annotations

import asyncpg

from rollwave.errors import ConfigurationError
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("codecs")

_TEXT = "aÄ \\ ' \" % 7\n"
_VALUES = {
    "text": _TEXT,
    "text[]": [_TEXT, "", None],
    "varchar": _TEXT,
    "boolean": True,
    "int": -7,
    "bigint": 2**62 + 1,
    "float8": 0.1,
}

HINT = "Give Rollwave a pool without this codec: asyncpg.create_pool(url), with nothing else, does."


async def require_faithful(connection: Connection) -> None:
    """Check that the connection's codecs do not change values of the types that statements exchange.

    Codecs of other types are never used. A codec that reads an empty text as None does no harm.

    Raises:
        ConfigurationError: a codec changes values.
    """
    try:
        row = await connection.fetchrow(_sql["echo"], *_VALUES.values())
    except asyncpg.DataError as error:
        if error.severity is not None:  # an error of the server, not of a codec
            raise
        raise ConfigurationError(f"a codec of the host's pool refuses plain values: {error}", hint=HINT) from error
    assert row is not None  # a SELECT without FROM has one row
    for (name, sent), found in zip(_VALUES.items(), row, strict=True):
        if not isinstance(found, type(sent)) or found != sent:
            raise ConfigurationError(
                f"the host's pool has a codec that changes values of type {name}: {sent!r} came back as {found!r}",
                hint=HINT,
            )
