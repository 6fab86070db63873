"""Migrates a database to the schema of this program: applies plain SQL files, in order, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import asyncpg

from rollwave.errors import ConfigurationError, DatabaseUnavailable, IdentityUndecided, SchemaMismatch
from rollwave.store import column_types, health, host_tables, identity, rights, status_values
from rollwave.store.connecting import unavailable
from rollwave.store.database import Connection, Pool, is_direct, read_url, system_transaction
from rollwave.store.identity import Decision
from rollwave.store.outage import CONNECTION_TROUBLE
from rollwave.store.schema import ANY_LOGIN, MIGRATE, explained, lacks, no_schema
from rollwave.store.schema_change import change_tables
from rollwave.store.url import DIRECT

_SETS_RIGHTS_UP = "0004_row_level_security.sql"
"""Rights that are granted directly after this file are not counted as repairs."""

_LOCK = 0x726F6C6C77617665  # "rollwave", so that two migrating processes take turns


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``migrations/``: ``0002_tables.sql`` has version 2."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The checksum by which an edited file is recognised."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration of this program, in order."""
    folder = files("rollwave.store") / "migrations"
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [Migration(int(name[:4]), name, (folder / name).read_text("utf-8")) for name in names]


@dataclass(frozen=True, slots=True)
class Migrated:
    """The result of a migration, as texts.

    Attributes:
        applied: names of the files that were applied.
        repaired: rights that were wrong and have been repaired. Empty if all rights were set up just now.
        unrepaired: rights that could not be repaired.
        made: tables that were created and that a host's own migrations may want to create; None: there are none.
        refused: status values of the contract that a host's columns refuse.
        identity: the change of the identity; empty: none.
        undecided: the error if an operator must first decide whether this database is the original or a copy.
    """

    applied: list[str]
    repaired: list[str]
    unrepaired: list[str]
    made: host_tables.Made | None = None
    refused: Sequence[status_values.Refused] = ()
    identity: str = ""
    undecided: IdentityUndecided | None = None


async def migrate(
    dsn: str,
    *,
    adopt_only: bool = False,
    force_rls: bool = False,
    grant_to: str | None = None,
    decision: Decision | None = None,
) -> Migrated:
    """Apply the missing files, and repair rights. Safe to repeat, also while workers run.

    Args:
        adopt_only: create no table that a host's own migrations would create.
        force_rls: also force row-level security on tables adopted from a host.
        grant_to: a login that may run the engine from now on (it may take the role ``pulse_app``).
        decision: whether this database is the original or a copy, if it was copied or moved.

    Raises:
        Conflict: ``decision`` is "copy", but this database is the original. The schema is up to date then.
        DatabaseUnavailable: PostgreSQL cannot be reached, or a file cannot be applied.
        ConfigurationError: ``dsn`` leads through a pooler, or a parameter in it cannot be used; or there is no login
            ``grant_to``. Nothing was changed.
        SchemaMismatch: the database is newer than this program, or was made from other files. Or a host's status column
            has no text type, a column of the host has the name of one that is added and another type, or
            (``adopt_only``) a table of the host is missing: then nothing was changed.
    """
    connection = await _connect(dsn)
    try:
        if not await is_direct(connection):
            raise ConfigurationError("migrations would go through a connection pooler, and not take turns", hint=DIRECT)
        if grant_to:
            await _require_login(connection, grant_to)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        done = await _migrate_tables(connection, adopt_only=adopt_only, force_rls=force_rls)
        if grant_to:
            quoted = await connection.fetchval("SELECT quote_ident($1)", grant_to)
            await connection.execute(f"GRANT pulse_app TO {quoted}")
        await identity.let_engine_read(connection)
        return await _with_identity(connection, done, decision)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError) as error:
        raise await rights.refused(connection, error) from error
    except asyncpg.PostgresError as error:
        raise DatabaseUnavailable(f"migrating failed; what was done before is kept: {error}") from error
    finally:
        await connection.close()


async def _connect(dsn: str) -> Connection:
    url = read_url(dsn)
    try:
        return await asyncpg.connect(
            url.dsn,
            timeout=max(10, url.connect_timeout),
            statement_cache_size=0 if url.pooled else 100,
            server_settings={"application_name": url.application_name},
        )
    except (*CONNECTION_TROUBLE, ValueError) as error:
        raise unavailable(error) from error


async def _migrate_tables(connection: Connection, *, adopt_only: bool, force_rls: bool) -> Migrated:
    """Everything but the login and the identity."""
    before = await host_tables.look(connection)
    if adopt_only:
        before.require_all()
    await status_values.require_text(connection)
    await column_types.require(connection)
    applied = await _apply_missing(connection)
    repaired, unrepaired = await rights.repair(connection, force_rls=force_rls)
    if _SETS_RIGHTS_UP in applied:
        repaired = []
    made = before.made() if applied else None
    async with connection.transaction():
        refused = await status_values.refused(connection)
    return Migrated(applied, repaired, unrepaired, made, refused)


async def _with_identity(connection: Connection, done: Migrated, decision: Decision | None) -> Migrated:
    """Carry out the decision about what this database is. Without one, say whether one is needed."""
    if decision:
        bound_just_now = any(name.endswith("_identity.sql") for name in done.applied)
        return replace(done, identity=await identity.decide(connection, decision, bound_just_now=bound_just_now))
    found = await identity.read(connection)
    return replace(done, undecided=None if found.standing.decided else found.undecided())


async def _require_login(connection: Connection, name: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text)", name):
        raise ConfigurationError(f"there is no login {name}", hint=f"Make it first: `createuser {name}`.")


async def _apply_missing(connection: Connection) -> list[str]:
    await connection.execute("SET client_min_messages = warning; SET TIME ZONE 'UTC'")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS rollwave_migrations ("
        " version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT version, name, checksum FROM rollwave_migrations")
    missing = _missing({row["version"]: row["checksum"] for row in rows})
    if any(migration.name == _SETS_RIGHTS_UP for migration in missing):
        await host_tables.remember(connection)
    if missing:
        await rights.let_roles_use_schema(connection)
    for migration in missing:
        await _apply(connection, migration)
    return [migration.name for migration in missing]


async def _apply(connection: Connection, migration: Migration) -> None:
    """Apply one file in one transaction."""

    async def work() -> None:
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO rollwave_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )

    await change_tables(connection, work)


def _missing(applied: dict[int, str]) -> list[Migration]:
    known = migrations()
    newer = max(applied, default=0)
    if newer > known[-1].version:
        raise SchemaMismatch(
            f"the database is at schema {newer}, this program knows {known[-1].version}",
            hint="Upgrade Rollwave; an older program must not run on a newer schema.",
        )
    for migration in known:
        if migration.version in applied and applied[migration.version] != migration.checksum:
            raise SchemaMismatch(
                f"{migration.name} is not the file that was applied to this database",
                hint="Reinstall Rollwave: a released migration is never edited.",
            )
    return [migration for migration in known if migration.version not in applied]


async def require_current_schema(pool: Pool) -> None:
    """Check that the database has this program's schema, and that the engine has its rights.

    Raises:
        SchemaMismatch: the schema is older, newer or missing, or a role or a right is missing.
    """
    expected = migrations()[-1].version
    try:
        async with system_transaction(pool) as connection:
            found = await connection.fetchval("SELECT max(version) FROM rollwave_migrations")
            wrong = await rights.wrong(connection) if found == expected else []
    except asyncpg.UndefinedTableError as error:
        raise no_schema() from error
    except asyncpg.PostgresError as error:
        lacks_right = isinstance(error, asyncpg.InsufficientPrivilegeError)
        missing = explained(error, (await health.login(pool)).name if lacks_right else ANY_LOGIN)
        if missing is error:
            raise
        raise missing from error
    if found is None:
        raise no_schema()
    if found != expected:
        raise SchemaMismatch(
            f"the database is at schema {found}, this program needs {expected}",
            hint=MIGRATE if found < expected else "Upgrade Rollwave: an older program must not run on a newer schema.",
        )
    if lacking := [each.fault for each in wrong if each.needed]:
        raise lacks(lacking)
