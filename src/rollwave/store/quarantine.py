"""Keeps a limited number of messages of devices that could not be read."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from rollwave.errors import InvalidInput
from rollwave.store import health
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import with_moments
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("quarantine")

MAX_PAYLOAD_BYTES = 4096
"""Maximum number of bytes kept of one message."""
MAX_ROWS_PER_TENANT = 1000
"""Maximum number of messages kept per tenant."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message that could not be read, and the reason. ``payload`` is cut to 4 KB when it is stored."""

    device_id: str
    reason: str
    payload: bytes


class Readable(NamedTuple):
    """A payload as text: UTF-8, or hex digits (``encoding`` is then ``hex``)."""

    encoding: str
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored message."""

    id: int
    device_id: str
    received_at: datetime
    reason: str
    payload: bytes

    @property
    def cut(self) -> bool:
        """Whether the message may have been longer than the stored part."""
        return len(self.payload) >= MAX_PAYLOAD_BYTES

    @property
    def readable(self) -> Readable:
        """The payload as text."""
        try:
            # The payload may be cut off in the middle of a character.
            decoder = codecs.getincrementaldecoder("utf-8")()
            return Readable("utf-8", decoder.decode(self.payload, final=not self.cut))
        except UnicodeDecodeError:
            return Readable("hex", self.payload.hex())


async def keep(connection: Connection, tenant_id: str, samples: Sequence[Sample]) -> None:
    """Store ``samples``, with at most ``MAX_ROWS_PER_TENANT`` per tenant. Those of unknown tenants are dropped.

    Raises:
        ValueRefused: PostgreSQL refuses a value of one of the samples.
    """
    columns = (
        [each.device_id for each in samples],
        [each.reason for each in samples],
        [each.payload[:MAX_PAYLOAD_BYTES].hex() for each in samples],
    )
    with refusing_values():
        await connection.execute(_sql["keep"], tenant_id, *columns, MAX_ROWS_PER_TENANT)


async def tenants(pool: Pool) -> list[str]:
    """Every tenant with stored messages. Needs a login that bypasses row-level security.

    Raises:
        InvalidInput: row-level security applies to the login, as it should for that of the engine.
    """
    if not (await health.login(pool)).unconfined:
        raise InvalidInput(
            "row-level security shows this login one tenant at a time",
            hint="Name one with --tenant, or use a login that it does not confine: a superuser, or BYPASSRLS.",
        )
    return [row["tenant_id"] for row in await pool.fetch(_sql["tenants"])]


class Newest(NamedTuple):
    """A tenant's newest messages, newest first, and the number of all that are stored."""

    samples: list[Kept]
    total: int


async def newest(pool: Pool, tenant_id: str, limit: int, *, before: int | None = None) -> Newest:
    """The tenant's newest ``limit`` messages. ``before``: of those with a smaller id."""
    async with tenant_transaction(pool, tenant_id) as connection:
        rows = await connection.fetch(_sql["newest"], tenant_id, limit, before)
        total: int = await connection.fetchval(_sql["count"], tenant_id)
    return Newest([_kept(**with_moments(row)) for row in rows], total)


def _kept(payload: str, **others: Any) -> Kept:
    return Kept(payload=bytes.fromhex(payload), **others)


async def clear(pool: Pool, tenant_id: str) -> int:
    """Delete all messages of the tenant. Returns their number."""
    async with tenant_transaction(pool, tenant_id) as connection:
        gone: int = await connection.fetchval(_sql["clear"], tenant_id)
    return gone
