"""Brakes of a tenant: its halt and its freezes. Each change writes its audit row in the same statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain.brakes import HALT_NAME, MAX_FREEZES, Brake, BrakeKind
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store.database import Connection, Pool, system_transaction, tenant_transaction
from rollwave.store.moments import Document, moment, with_moments
from rollwave.store.page import Page, page
from rollwave.store.queries import load

_sql = load("brakes")

ALL_LOCK_SECONDS = 1.0
"""Maximum number of seconds for which a halt of all tenants waits for a lock on one of them."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The halt of a tenant: since when, by whom and why. ``by_name``: the name of the key; None: it has none."""

    since: datetime
    by: str
    reason: str | None
    by_name: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """What a halt of a tenant stops.

    ``campaigns``: running ones. ``in_progress``: their devices that carry on. ``per_minute``: devices that they may
    send to in a minute, as far as their policies limit it; ``unlimited``: one of them has no such limit.
    """

    campaigns: int
    in_progress: int
    per_minute: float
    unlimited: bool


def read(text: str | None) -> tuple[Brake, ...]:
    """Read the brakes that a statement returns as a JSON array."""
    if text is None:
        return ()
    return tuple(
        Brake(BrakeKind(kind), name, moment(start), None if end is None else moment(end), by, reason)
        for kind, name, start, end, by, reason in json.loads(text)
    )


async def standing(connection: Connection, tenant_id: str) -> tuple[Brake, ...]:
    """The tenant's halt, and its freezes that are not over."""
    return read(await connection.fetchval(_sql["standing"], tenant_id))


async def halt_of(pool: Pool, tenant_id: str) -> Halt | None:
    """The tenant's halt; None: sending is not halted."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return await _halt(connection, tenant_id)


async def _halt(connection: Connection, tenant_id: str) -> Halt | None:
    row = await connection.fetchrow(_sql["halt_of"], tenant_id, HALT_NAME)
    return None if row is None else Halt(moment(row["since"]), row["by"], row["reason"], row["by_name"])


async def halt(pool: Pool, tenant_id: str, *, actor: str, reason: str) -> Halt:
    """Stop all sending of a tenant, and return its halt. A tenant that is halted stays so: nothing changes."""
    async with tenant_transaction(pool, tenant_id) as connection:
        await connection.execute(_sql["halt"], tenant_id, HALT_NAME, actor, reason)
        found = await _halt(connection, tenant_id)
        if found is None:
            raise Conflict("the halt was lifted meanwhile", hint="Halt again.")
        return found


async def reach(pool: Pool, tenant_id: str, *, tick_interval: float) -> Reach:
    """What a halt of the tenant stops now, or would stop. ``tick_interval``: seconds of a tick."""
    async with tenant_transaction(pool, tenant_id) as connection:
        row = await connection.fetchrow(_sql["reach"], tenant_id, tick_interval)
    assert row is not None  # it only counts
    return Reach(**row)


async def halt_tenants(pool: Pool, tenants: Sequence[str], *, actor: str, reason: str) -> None:
    """Halt tenants in one statement: with thousands, a transaction for each takes many seconds.

    ``tenants``: sorted. Needs a login that bypasses row-level security. An error halts none of them.
    """
    await _of_tenants(pool, "halt_tenants", tenants, actor, reason)


async def lift_tenants(pool: Pool, tenants: Sequence[str], *, actor: str, reason: str | None) -> None:
    """Lift the halts of tenants, as :func:`halt_tenants`."""
    await _of_tenants(pool, "lift_tenants", tenants, actor, reason)


async def _of_tenants(pool: Pool, statement: str, tenants: Sequence[str], actor: str, reason: str | None) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {int(ALL_LOCK_SECONDS * 1000)}")
        await connection.execute(_sql[statement], list(tenants), HALT_NAME, actor, reason)


async def lift(pool: Pool, tenant_id: str, *, actor: str, reason: str | None = None) -> bool:
    """Let a tenant send again. False: it was not halted, and nothing changes."""
    return await _lift(pool, tenant_id, BrakeKind.HALT, HALT_NAME, actor, reason)


async def _lift(pool: Pool, tenant_id: str, kind: BrakeKind, name: str, actor: str, reason: str | None) -> bool:
    async with tenant_transaction(pool, tenant_id) as connection:
        lifted: int = await connection.fetchval(_sql["lift"], tenant_id, kind, name, actor, reason)
    return lifted > 0


async def freezes(pool: Pool, tenant_id: str, *, limit: int, cursor: str | None = None) -> Page:
    """A page of the tenant's freezes, also those that are over, ordered by name."""
    async with tenant_transaction(pool, tenant_id) as connection:
        rows = await connection.fetch(_sql["freezes"], tenant_id, cursor, limit + 1)
        total = await connection.fetchval(_sql["count_freezes"], tenant_id)
    return page(rows, total, limit=limit, key="name")


async def add_freeze(
    pool: Pool, tenant_id: str, name: str, start: datetime, end: datetime, *, actor: str, reason: str | None
) -> Document:
    """Add a freeze from ``start`` to before ``end``, and return it.

    Raises:
        InvalidInput: it ends before it starts, or has ended already.
        Conflict: the tenant has a freeze of this name, or too many.
    """
    if start >= end:
        raise InvalidInput("must be after start", field="end")
    async with tenant_transaction(pool, tenant_id) as connection:
        not_over, ended = await _room(connection, tenant_id, end)
        if ended:
            raise InvalidInput("is over already", field="end")
        if not_over >= MAX_FREEZES:
            raise Conflict(
                f"the tenant has {not_over} freezes that are not over, the maximum", hint="Remove one of them first."
            )
        arguments = tenant_id, name, start.timestamp(), end.timestamp(), actor, reason
        row = await connection.fetchrow(_sql["add_freeze"], *arguments)
    if row is None:
        raise Conflict(f"there is a freeze {name}", hint="Remove it first, or choose another name.")
    return {name: value for name, value in with_moments(row).items() if name != "woken"}


async def _room(connection: Connection, tenant_id: str, end: datetime) -> tuple[int, bool]:
    """The number of freezes that are not over, and whether ``end`` is over."""
    row = await connection.fetchrow(_sql["freezes_not_over"], tenant_id, end.timestamp())
    assert row is not None
    return row["not_over"], row["ended"]


async def remove_freeze(pool: Pool, tenant_id: str, name: str, *, actor: str, reason: str | None = None) -> None:
    """Remove a freeze.

    Raises:
        NotFound: the tenant has no freeze of this name.
    """
    if not await _lift(pool, tenant_id, BrakeKind.FREEZE, name, actor, reason):
        raise NotFound(f"no freeze {name}", hint="List the freezes to see their names.")


async def lifted_by(connection: Connection, tenant_id: str, kind: BrakeKind, name: str) -> str | None:
    """Who lifted this brake the last time; None: nobody did since it was set."""
    actor: str | None = await connection.fetchval(_sql["lifted_by"], tenant_id, kind, name)
    return actor


async def in_force(pool: Pool, tenant_id: str, *, limit: int) -> list[Document]:
    """The halt and the freezes that stop the tenant's sending now, the halt first."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return [with_moments(row) for row in await connection.fetch(_sql["in_force"], tenant_id, limit)]


async def name_of_key(pool: Pool, tenant_id: str, key_id: str) -> str:
    """The name of an API key of the tenant; its id, if it has none."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return await connection.fetchval(_sql["name_of_key"], tenant_id, key_id) or key_id


async def changes(pool: Pool, tenant_id: str, *, limit: int) -> list[Document]:
    """The last changes of the tenant's brakes, newest first: when, what, by whom and why."""
    async with tenant_transaction(pool, tenant_id) as connection:
        return [with_moments(row) for row in await connection.fetch(_sql["changes"], tenant_id, limit)]


async def halted_tenants(pool: Pool) -> int:
    """The number of tenants of which all sending is halted."""
    async with system_transaction(pool) as connection:
        number: int = await connection.fetchval(_sql["halted_tenants"])
    return number


async def tenants(pool: Pool) -> list[str]:
    """Every tenant. Needs a login that bypasses row-level security.

    Raises:
        InvalidInput: row-level security applies to the login, as it should for that of the engine.
    """
    if await pool.fetchval(_sql["confined"]):
        raise InvalidInput(
            "row-level security shows this login one tenant at a time",
            hint="Use a login that it does not confine: a superuser, or BYPASSRLS.",
        )
    return [row["tenant_id"] for row in await pool.fetch(_sql["tenants"])]
