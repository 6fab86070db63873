"""Connections and transactions. :func:`tenant_transaction` is the access to the rows of a tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from rollwave.errors import InvalidInput
from rollwave.store.connecting import SERVER_SETTINGS, Hosts, KeepaliveConnection, unavailable
from rollwave.store.outage import CONNECTION_TROUBLE, refusing_foreign_text
from rollwave.store.pools import make_pool
from rollwave.store.time_limits import (
    ANSWER_SECONDS,
    LEAVING_SECONDS,
    STATEMENT_TIMEOUT_SECONDS,
    answered,
    give_up,
    given_up_after,
)
from rollwave.store.url import DatabaseUrl, read

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool  # FastAPI evaluates this annotation, and older versions cannot evaluate a string

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

LOCK_TIMEOUT_SECONDS = 5.0
"""Seconds that a statement waits for a lock of another transaction."""

IDLE_TIMEOUT_SECONDS = 15.0
"""Seconds after which PostgreSQL ends a transaction of ours in which nothing happens."""

IN_TURN = "; ".join(
    f"SET LOCAL {name} = 0"
    for name in (
        "enable_seqscan",
        "enable_bitmapscan",
        "enable_hashjoin",
        "enable_mergejoin",
        "enable_sort",
        "jit",
        "random_page_cost",
    )
)
"""Settings for statements that take the head of a queue: they allow only a plan along the queue's index.

PostgreSQL's statistics are a minute old, and a queue may be emptied in that time. If they say that it is full,
PostgreSQL searches the whole table for one row; if they say that it is nearly empty, it reads all rows of the tenant,
or all rows of the campaign by the primary key, which it then sorts.
"""


@asynccontextmanager
async def create_pool(dsn: str, *, size: int = 10, pooled: bool = False) -> AsyncIterator[Pool]:
    """A pool for Rollwave's own commands. A host may pass its own pool instead, which needs no special arguments.

    Args:
        pooled: ``dsn`` leads through a pooler in transaction mode: prepared statements end with their transaction, and
            no parameters are used that a pooler does not know. ``pgbouncer=true`` in ``dsn`` has the same effect.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached or refuses the login.
        ConfigurationError: a parameter in ``dsn`` cannot be used.
    """
    url = read_url(dsn)
    pooled = pooled or url.pooled
    async with make_pool(
        url.dsn,
        max_size=size,
        connect=Hosts(url.connect_timeout).connect,
        command_timeout=ANSWER_SECONDS,
        connection_class=KeepaliveConnection,
        resets=False,  # our transactions change nothing in the session, and interrupted ones are rolled back
        statement_cache_size=0 if pooled else 100,
        server_settings={"application_name": url.application_name} | ({} if pooled else SERVER_SETTINGS),
    ) as pool:
        await _require_reached(pool)
        yield pool


async def _require_reached(pool: Pool) -> None:
    try:
        async with pool.acquire():
            return
    except (*CONNECTION_TROUBLE, ValueError) as error:
        raise unavailable(error) from error


@asynccontextmanager
async def direct_pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool of one connection, which is opened when it is first needed.

    Raises:
        DatabaseUnavailable, ConfigurationError: ``dsn`` cannot be read.
    """
    url = read_url(dsn)
    async with make_pool(
        url.dsn,
        max_size=1,
        connect=Hosts(url.connect_timeout).connect,
        connection_class=KeepaliveConnection,
        statement_cache_size=0 if url.pooled else 100,
        server_settings={"application_name": url.application_name} | ({} if url.pooled else SERVER_SETTINGS),
    ) as pool:
        yield pool


def read_url(dsn: str) -> DatabaseUrl:
    """Read a database URL.

    Raises:
        DatabaseUnavailable: the URL cannot be read.
        ConfigurationError: a parameter in it cannot be used.
    """
    try:
        return read(dsn)
    except ValueError as error:
        raise unavailable(error) from error


async def is_direct(connection: Connection) -> bool:
    """Whether no pooler is between. A pooler gives its clients a process id that is not PostgreSQL's."""
    backend: int = await connection.fetchval("SELECT pg_backend_pid()", timeout=ANSWER_SECONDS)
    return backend == connection.get_server_pid()


@asynccontextmanager
async def tenant_transaction(
    pool: Pool,
    tenant_id: str,
    *,
    timeout: float = STATEMENT_TIMEOUT_SECONDS,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
    generic_plans: bool = False,
    queues: bool = False,
    immediate_checks: bool = False,
    snapshot: bool = False,
) -> AsyncIterator[Connection]:
    """A transaction that sees and writes the rows of one tenant, as ``pulse_app``.

    It uses ``SET LOCAL``, which ends with the transaction, so a pooled connection keeps no tenant; and Citus passes
    it on to its worker nodes, unlike ``set_config``.

    Args:
        timeout: seconds for each statement.
        lock_timeout: seconds for each lock that a statement waits for.
        generic_plans: for statements with arrays of keys, which use indexes only. A plan for particular values would
            use statistics, which a new tenant does not have.
        queues: for statements that take the head of a queue (``IN_TURN``).
        immediate_checks: a host's deferred constraints are checked after each statement instead of at the commit.
        snapshot: all statements see the same moment, and none may write. For answers that are made of several.
    """
    _require_tenant(tenant_id)
    begin = f"SET LOCAL app.tenant_id = {_quoted(tenant_id)}; {_limit(timeout, lock_timeout)}"
    wanted = ((_GENERIC_PLANS, generic_plans), (f"; {IN_TURN}", queues), (_IMMEDIATE_CHECKS, immediate_checks))
    settings = begin + "".join(each for each, is_wanted in wanted if is_wanted)
    async with _transaction(pool, settings, snapshot=snapshot) as connection:
        yield connection


@asynccontextmanager
async def system_transaction(
    pool: Pool,
    *,
    timeout: float = STATEMENT_TIMEOUT_SECONDS,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
    generic_plans: bool = False,
) -> AsyncIterator[Connection]:
    """A transaction as ``pulse_app`` without a tenant: it sees only tables that belong to the installation."""
    begin = f"SET LOCAL app.tenant_id = ''; {_limit(timeout, lock_timeout)}"
    async with _transaction(pool, begin + (_GENERIC_PLANS if generic_plans else "")) as connection:
        yield connection


@asynccontextmanager
async def _transaction(pool: Pool, settings: str, *, snapshot: bool = False) -> AsyncIterator[Connection]:
    async with pool.acquire() as connection, as_engine(connection, settings, snapshot=snapshot):
        yield answered(connection)


@asynccontextmanager
async def as_engine(
    connection: Connection,
    settings: str,
    *,
    timeout: float = ANSWER_SECONDS,
    holds_lock: bool = False,
    snapshot: bool = False,
) -> AsyncIterator[None]:
    """A transaction as ``pulse_app``. It begins together with its settings, in one round trip less than asyncpg's.

    A connection that does not answer is closed, and PostgreSQL ends the transaction.

    Args:
        timeout: seconds for the statement that begins it, and for the one that ends it.
        holds_lock: the session has a lock that must not be lost if the commit is cancelled.
        snapshot: as in :func:`tenant_transaction`.
    """
    try:
        with refusing_foreign_text():  # a tenant's id
            await connection.execute(f"{_SNAPSHOT if snapshot else _BEGIN}; {settings}", timeout=timeout)
        yield
    except BaseException:
        await _roll_back(connection)
        raise
    try:
        await connection.execute("COMMIT", timeout=timeout)
    except (TimeoutError, asyncio.CancelledError) as error:
        if holds_lock and isinstance(error, asyncio.CancelledError):
            await _roll_back(connection)
        else:
            give_up(connection)
        raise


async def _roll_back(connection: Connection) -> None:
    with suppress(*CONNECTION_TROUBLE):  # a lost connection has ended the transaction
        async with given_up_after(LEAVING_SECONDS, connection):
            await connection.execute("ROLLBACK")


@asynccontextmanager
async def named(connection: Connection, tenant_id: str) -> AsyncIterator[None]:
    """Let a system transaction see and write this tenant's rows during the block."""
    await connection.execute(f"SET LOCAL app.tenant_id = {_quoted(tenant_id)}")
    yield
    # Not needed after an error, which ends the transaction and with it the setting.
    await connection.execute("SET LOCAL app.tenant_id = ''")


_SESSION = "SET LOCAL TIME ZONE 'UTC'; SET LOCAL row_security = on; SET LOCAL ROLE pulse_app"

_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_SESSION}"
"""The beginning of each transaction. It overrides the session settings of a host's pool (ADR 30).

READ COMMITTED: a statement after a lock must see what the previous holder committed. UTC: a host's columns without a
time zone contain UTC. With row_security off, PostgreSQL would refuse statements on tenants' rows.
"""

_SNAPSHOT = f"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {_SESSION}"
"""The beginning of a transaction that reads one moment. It writes nothing, so PostgreSQL never makes it try again."""


def _require_tenant(tenant_id: str) -> None:
    # Checked before the connection is used: with text that cannot be encoded, asyncpg 0.29 would wait for ever.
    try:
        tenant_id.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a tenant's id is text in UTF-8, and this one is not") from None
    if not tenant_id or "\x00" in tenant_id:
        raise InvalidInput("a transaction needs a tenant")


# A generic plan that is made while a table is small stays when the table grows, and would read all of it for each key.
_GENERIC_PLANS = "; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = 0"
_IMMEDIATE_CHECKS = "; SET CONSTRAINTS ALL IMMEDIATE"


def _limit(timeout: float, lock_timeout: float = LOCK_TIMEOUT_SECONDS) -> str:
    # A frozen process must not keep a campaign's row locked, and a host's lock must not delay the engine for long.
    return (
        f"SET LOCAL statement_timeout = {max(1, int(timeout * 1000))};"
        f" SET LOCAL lock_timeout = {int(lock_timeout * 1000)};"
        f" SET LOCAL idle_in_transaction_session_timeout = {int(IDLE_TIMEOUT_SECONDS * 1000)}"
    )


def _quoted(text: str) -> str:
    # E'' so that the result does not depend on standard_conforming_strings.
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
