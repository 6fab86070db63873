"""The tables that a host's own migrations may create, and the warning if Rollwave has created them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rollwave.domain.rights import FUNCTIONS, OWN, SHARED
from rollwave.errors import SchemaMismatch
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("host_tables")

_MIGRATORS = (
    "alembic_version",
    "schema_migrations",
    "flyway_schema_history",
    "databasechangelog",
    "django_migrations",
    "_prisma_migrations",
    "knex_migrations",
    "goose_db_version",
    "_sqlx_migrations",
    "__diesel_schema_migrations",
    "__EFMigrationsHistory",
    "_yoyo_migration",
    "aerich",
    "migrations",
    "typeorm_migrations",
    "phinxlog",
    "gorp_migrations",
)
"""Tables in which well-known migration tools record the applied migrations."""


@dataclass(frozen=True, slots=True)
class Made:
    """Tables that Rollwave has created, and that a host's own migrations may want to create."""

    tables: list[str]
    migrators: list[str]
    among_others: bool

    def __str__(self) -> str:
        text = f"made the tables {', '.join(self.tables)}"
        if self.migrators:
            return f"{text} in a database that another migration tool works on (it has {', '.join(self.migrators)})"
        return f"{text} in a database that has other tables already" if self.among_others else text

    @property
    def hint(self) -> str:
        """What to do if another service creates them."""
        undo = "restore the database as it was before"
        if len(self.tables) == len(SHARED):
            undo = (
                f"remove them (DROP TABLE {', '.join((*self.tables, *OWN))} CASCADE; "
                f"DROP FUNCTION IF EXISTS {', '.join(FUNCTIONS)})"
            )
        return (
            "If the migrations of another service make these tables, they will now fail or take their work for done: "
            f"{undo}, run those migrations, then `rollwave migrate --adopt-only`. If no other service makes them, "
            "nothing needs to be done."
        )


@dataclass(frozen=True, slots=True)
class Before:
    """The tables in the database before any migration was applied."""

    missing: list[str]
    others: bool
    migrators: list[str]

    def require_all(self) -> Self:
        """Check that the host has created its tables.

        Raises:
            SchemaMismatch: a table is missing.
        """
        if self.missing:
            raise SchemaMismatch(
                f"--adopt-only makes no table that a host makes, and missing are: {', '.join(self.missing)}",
                hint="Run the host's own migrations first, on the database that DATABASE_URL names. "
                "Leave --adopt-only out if Rollwave is to make these tables.",
            )
        return self

    def made(self) -> Made | None:
        """The tables that the migrations have created; None: the host had created all of them."""
        return Made(self.missing, self.migrators, self.others) if self.missing else None


async def look(connection: Connection) -> Before:
    """Read which tables the database has."""
    row = await connection.fetchrow(_sql["tables"], list(SHARED), list(_MIGRATORS))
    assert row is not None  # an aggregate
    present = set(row["present"])
    return Before([name for name in SHARED if name not in present], bool(row["others"]), sorted(row["migrators"]))


async def remember(connection: Connection) -> None:
    """Store for this session which rights the host gave pulse_app, before migrations grant more on the same tables."""
    await connection.execute(_sql["remember"])
