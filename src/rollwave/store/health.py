"""What an operator wants to know of the database: read, never changed. Every error is one that can be shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.errors import DatabaseUnavailable
from rollwave.store import identity, rights, status_values
from rollwave.store.connecting import unavailable
from rollwave.store.database import Connection, Pool, is_direct, system_transaction
from rollwave.store.identity import Installation
from rollwave.store.listeners import CONTINUOUS_SECONDS
from rollwave.store.outage import CONNECTION_TROUBLE, is_away
from rollwave.store.queries import load

_sql = load("health")

_TIMEOUT_SECONDS = 5.0

TENANT_TABLES = (
    "tenants",
    "devices",
    "device_groups",
    "device_group_members",
    "firmware_versions",
    "ota_campaigns",
    "ota_device_status",
    "ota_campaign_waves",
    "ota_campaign_history",
    "ota_quarantine",
    "rollwave_api_keys",
    "rollwave_event_consumers",
    "rollwave_group_imports",
    "rollwave_group_import_devices",
    "rollwave_idempotency",
)
"""What row-level security has to guard."""


@dataclass(frozen=True, slots=True)
class Login:
    """The role that DATABASE_URL logs in as."""

    name: str
    superuser: bool
    bypasses_rls: bool

    @property
    def unconfined(self) -> bool:
        """Whether row-level security means nothing to it outside the engine's own transactions."""
        return self.superuser or self.bypasses_rls


@dataclass(frozen=True, slots=True)
class Role:
    """A role that `rollwave migrate` makes."""

    name: str
    can_login: bool
    superuser: bool
    bypasses_rls: bool


@dataclass(frozen=True, slots=True)
class TenantTable:
    """How a table is guarded. ``adopted``: a host had it before us."""

    name: str
    present: bool
    enabled: bool
    forced: bool
    has_policy: bool
    adopted: bool


class ServerVersion(NamedTuple):
    """PostgreSQL's major version, and its version in full."""

    major: int
    text: str


async def server(pool: Pool) -> ServerVersion:
    """The version of the server."""
    async with _as_login(pool) as connection:
        row = await connection.fetchrow(_sql["server"])
    assert row is not None
    return ServerVersion(row["major"], row["version"])


async def encoding(pool: Pool) -> str:
    """The encoding in which the database keeps text."""
    async with _as_login(pool) as connection:
        name: str = await connection.fetchval(_sql["encoding"])
    return name


async def login(pool: Pool) -> Login:
    """Who we are."""
    async with _as_login(pool) as connection:
        row = await connection.fetchrow(_sql["login"])
    assert row is not None
    return Login(**row)


async def roles(pool: Pool) -> dict[str, Role]:
    """``pulse_app`` and ``rollwave_due``, where they exist."""
    async with _as_login(pool) as connection:
        return {row["name"]: Role(**row) for row in await connection.fetch(_sql["roles"])}


async def try_role(pool: Pool) -> None:
    """Take ``pulse_app`` as the engine does.

    Raises:
        DatabaseUnavailable: this login may not.
    """
    async with _as_engine(pool):
        pass


async def schema_version(pool: Pool) -> int | None:
    """The newest migration applied; None: there is no schema of ours."""
    async with _as_login(pool) as connection:
        if not await connection.fetchval(_sql["has_schema"]):
            return None
    async with _as_engine(pool) as connection:
        version: int | None = await connection.fetchval(_sql["schema_version"])
    return version


async def tenant_tables(pool: Pool) -> list[TenantTable]:
    """Every table that holds tenants' rows, missing ones too."""
    async with _as_engine(pool) as connection:
        return [TenantTable(**row) for row in await connection.fetch(_sql["tables"], TENANT_TABLES)]


async def wrong_rights(pool: Pool) -> list[str]:
    """Who has too much or too little, policies and owners that are not as they shall be: one phrase for each."""
    async with _as_engine(pool) as connection:
        return [each.fault for each in await rights.wrong(connection)]


async def seen_without_tenant(pool: Pool) -> list[str]:
    """Tables of which ``pulse_app`` sees rows without naming a tenant. All must be present."""
    async with _as_engine(pool) as connection:
        return [row[0] for row in await connection.fetch(_sql["seen_without_tenant"])]


async def installation(pool: Pool) -> Installation:
    """Which database the installation belongs to."""
    async with _as_engine(pool) as connection:
        return await identity.read(connection)


async def due_campaigns(pool: Pool) -> int:
    """How many campaigns need the engine now."""
    async with _as_engine(pool) as connection:
        number: int = await connection.fetchval(_sql["due"])
    return number


async def refused_words(pool: Pool) -> list[status_values.Refused]:
    """The contract's words that a host's columns do not take.

    Raises:
        SchemaMismatch: such a column holds no text.
    """
    async with _as_engine(pool) as connection:
        await status_values.require_text(connection)
        return await status_values.refused(connection)


async def unknown_words(pool: Pool) -> dict[str, int]:
    """Words that are none of the contract's, in unfinished campaigns, with the number of devices."""
    with _explained():
        return await status_values.unknown(pool)


async def slots_alive(pool: Pool, slots: int) -> list[int]:
    """Which of the first ``slots`` listener slots are listened to."""
    async with _as_engine(pool) as connection:
        return [row["slot"] for row in await connection.fetch(_sql["slots"], slots, CONTINUOUS_SECONDS)]


async def direct(pool: Pool) -> bool:
    """Whether no pooler stands between."""
    async with _as_login(pool) as connection:
        return await is_direct(connection)


async def clock(pool: Pool) -> float:
    """The database's time, in seconds since 1970."""
    async with _as_login(pool) as connection:
        seconds: float = await connection.fetchval(_sql["clock"])
    return seconds


@asynccontextmanager
async def _as_login(pool: Pool) -> AsyncIterator[Connection]:
    with _explained():
        async with pool.acquire(timeout=_TIMEOUT_SECONDS) as connection, connection.transaction():
            yield connection


@asynccontextmanager
async def _as_engine(pool: Pool) -> AsyncIterator[Connection]:
    with _explained():
        async with system_transaction(pool, timeout=_TIMEOUT_SECONDS) as connection:
            yield connection


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except CONNECTION_TROUBLE as error:
        # One that was lost in the middle may say no more than that its transaction could not be ended.
        raise unavailable(error) if is_away(error) else DatabaseUnavailable(f"PostgreSQL refused: {error}") from error
