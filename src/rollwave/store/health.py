"""Reads the state of the database for `rollwave doctor` and readiness. Changes nothing. Errors contain no secrets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rollwave.errors import DatabaseUnavailable
from rollwave.store import identity, labels, rights, status_values
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
    "ota_campaign_policies",
    "ota_campaign_segments",
    "ota_campaign_cells",
    "ota_campaign_tests",
    "ota_campaign_test_buckets",
    "ota_campaign_ranks",
    "ota_campaign_budget_values",
    "ota_campaign_budget_held",
    "ota_campaign_points",
    "ota_campaign_plans",
    "ota_quarantine",
    "rollwave_api_keys",
    "rollwave_device_fields",
    "rollwave_brake_history",
    "rollwave_brakes",
    "rollwave_event_consumers",
    "rollwave_group_imports",
    "rollwave_group_import_devices",
    "rollwave_idempotency",
    "rollwave_policies",
)
"""The tables with rows of tenants, which row-level security must protect."""


@dataclass(frozen=True, slots=True)
class Login:
    """The role that DATABASE_URL logs in as."""

    name: str
    superuser: bool
    bypasses_rls: bool

    @property
    def unconfined(self) -> bool:
        """Whether row-level security does not apply to it outside the engine's own transactions."""
        return self.superuser or self.bypasses_rls


@dataclass(frozen=True, slots=True)
class Role:
    """A role that `rollwave migrate` creates."""

    name: str
    can_login: bool
    superuser: bool
    bypasses_rls: bool


@dataclass(frozen=True, slots=True)
class TenantTable:
    """The row-level security of a table. ``adopted``: a host made the table."""

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
    """The database's text encoding."""
    async with _as_login(pool) as connection:
        name: str = await connection.fetchval(_sql["encoding"])
    return name


async def login(pool: Pool) -> Login:
    """The role that this connection has logged in as."""
    async with _as_login(pool) as connection:
        row = await connection.fetchrow(_sql["login"])
    assert row is not None
    return Login(**row)


async def roles(pool: Pool) -> dict[str, Role]:
    """``pulse_app`` and ``rollwave_due``, if they exist."""
    async with _as_login(pool) as connection:
        return {row["name"]: Role(**row) for row in await connection.fetch(_sql["roles"])}


async def try_role(pool: Pool) -> None:
    """Take the role ``pulse_app`` as the engine does.

    Raises:
        DatabaseUnavailable: this login may not take it.
    """
    async with _as_engine(pool):
        pass


async def schema_version(pool: Pool) -> int | None:
    """The number of the newest applied migration; None: the database has no schema of Rollwave."""
    async with _as_login(pool) as connection:
        if not await connection.fetchval(_sql["has_schema"]):
            return None
    async with _as_engine(pool) as connection:
        version: int | None = await connection.fetchval(_sql["schema_version"])
    return version


async def tenant_tables(pool: Pool) -> list[TenantTable]:
    """Every table with tenants' rows, also missing ones."""
    async with _as_engine(pool) as connection:
        return [TenantTable(**row) for row in await connection.fetch(_sql["tables"], TENANT_TABLES)]


async def wrong_rights(pool: Pool) -> list[str]:
    """Wrong rights, policies and owners, one phrase for each."""
    async with _as_engine(pool) as connection:
        return [each.fault for each in await rights.wrong(connection)]


async def seen_without_tenant(pool: Pool) -> list[str]:
    """Tables of which ``pulse_app`` sees rows without a tenant. All tables must exist."""
    async with _as_engine(pool) as connection:
        return [row[0] for row in await connection.fetch(_sql["seen_without_tenant"])]


async def installation(pool: Pool) -> Installation:
    """Which database the installation belongs to."""
    async with _as_engine(pool) as connection:
        return await identity.read(connection)


async def single_tenant(pool: Pool) -> bool:
    """Whether the installation is known to have only one tenant."""
    async with _as_login(pool) as connection:
        single: bool = await connection.fetchval(_sql["single_tenant"])
    return single


async def due_campaigns(pool: Pool) -> int:
    """The number of campaigns that need the engine now."""
    async with _as_engine(pool) as connection:
        number: int = await connection.fetchval(_sql["due"])
    return number


async def refused_words(pool: Pool) -> list[status_values.Refused]:
    """The contract's status values that a host's columns refuse.

    Raises:
        SchemaMismatch: such a column has no text type.
    """
    async with _as_engine(pool) as connection:
        await status_values.require_text(connection)
        return await status_values.refused(connection)


async def unknown_words(pool: Pool) -> dict[str, int]:
    """Status values in unfinished campaigns that are not in the contract, with the number of devices."""
    with _explained():
        return await status_values.unknown(pool)


async def host_view(pool: Pool) -> labels.HostView | None:
    """The view in which a host shows its devices; None: there is none, and labels come from the registry.

    Raises:
        LabelsUnavailable: it is used, and cannot be read.
    """
    async with _as_engine(pool) as connection:
        view = await labels.host_view(connection)
        if view is not None and view.taken:
            await labels.try_view(connection)
    return view


async def slots_alive(pool: Pool, slots: int) -> list[int]:
    """Those of the first ``slots`` listener slots that have a listener."""
    async with _as_engine(pool) as connection:
        return [row["slot"] for row in await connection.fetch(_sql["slots"], slots, CONTINUOUS_SECONDS)]


async def direct(pool: Pool) -> bool:
    """Whether the connection goes to PostgreSQL directly, without a pooler."""
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
        # For a connection lost during a transaction, the error may only say that the transaction could not be ended.
        raise unavailable(error) if is_away(error) else DatabaseUnavailable(f"PostgreSQL refused: {error}") from error
