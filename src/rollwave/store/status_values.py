"""Status values in a host's columns: those of the contract that its types and checks refuse, and its own ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import SchemaMismatch
from rollwave.store.database import Connection, Pool, system_transaction, tenant_transaction
from rollwave.store.queries import load

_sql = load("status_values")

WORDS = {"ota_campaigns": [*CampaignStatus], "ota_device_status": [*ExecutionStatus]}

TENANTS, ROWS = 50, 100_000
"""Maximum number of tenants that are searched for unknown values, and of rows of each."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Status values that a host's column refuses."""

    table: str
    words: list[str]
    by: str

    def __str__(self) -> str:
        return f"{self.table}.status refuses {', '.join(self.words)}: {self.by}"

    @property
    def hint(self) -> str:
        """What to do."""
        return f"The engine writes these values: let {self.by} allow {', '.join(map(repr, map(str, self.words)))}."


async def require_text(connection: Connection) -> None:
    """Check that both status columns, if their tables exist, have a text type: the engine compares them with text.

    Raises:
        SchemaMismatch: a column has another type, such as an enumeration.
    """
    for row in await connection.fetch(_sql["columns"], list(WORDS)):
        if not row["is_text"]:
            table = row["of_table"]
            raise SchemaMismatch(
                f"{table}.status has the type {row['type']}, and the engine compares it with text",
                hint=f"ALTER TABLE {table} ALTER COLUMN status TYPE text USING status::text",
            )


async def refused(connection: Connection) -> list[Refused]:
    """The contract's status values that the types and checks of both columns refuse. Reads and writes no row.

    The connection is in a transaction. Checks on several columns are not tried.
    """
    found: list[Refused] = []
    for row in await connection.fetch(_sql["columns"], list(WORDS)):
        table = row["of_table"]
        words = WORDS[table]
        if await _takes(connection, table, None):  # otherwise the type of another column refuses NULL
            if misfits := [word for word in words if not await _takes(connection, table, word)]:
                found.append(Refused(table, [*misfits], f"its type {row['type']}"))
            words = [word for word in words if word not in misfits]
        found += [
            Refused(table, failing, f"the constraint {check['name']}")
            for check in await connection.fetch(_sql["checks"], table)
            if (failing := await _failing(connection, row["type"], check["expression"], words))
        ]
    return found


async def _takes(connection: Connection, table: str, word: str | None) -> bool:
    try:
        async with _savepoint(connection):
            await connection.fetchval(
                f"SELECT count(jsonb_populate_record(NULL::{table},"
                " jsonb_strip_nulls(jsonb_build_object('status', $1::text))))",
                word,
            )
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
        return False
    return True


async def _failing(connection: Connection, type_: str, expression: str, words: Sequence[str]) -> list[str]:
    """The values for which the check's expression is false; none if this login may not evaluate it."""
    try:
        async with _savepoint(connection):
            failing = _sql["failing"].replace("varchar", type_).replace("(true)", f"({expression})")
            rows = await connection.fetch(failing, [str(word) for word in words])
    except asyncpg.PostgresError:
        return []
    return [row["word"] for row in rows]


@asynccontextmanager
async def _savepoint(connection: Connection) -> AsyncIterator[None]:
    """A savepoint: an error in the block leaves the transaction usable, also if asyncpg has not begun it."""
    await connection.execute("SAVEPOINT rollwave_words")
    try:
        yield
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT rollwave_words")


async def unknown(pool: Pool) -> dict[str, int]:
    """Status values in RUNNING and PAUSED campaigns that are not in the contract, with the number of devices.

    Reads at most ``ROWS`` rows of each of ``TENANTS`` tenants.
    """
    async with system_transaction(pool) as connection:
        tenants = await connection.fetch(_sql["unfinished"], TENANTS)
    found: Counter[str] = Counter()
    for each in tenants:
        async with tenant_transaction(pool, each["tenant_id"]) as connection:
            words = [str(word) for word in ExecutionStatus]
            for row in await connection.fetch(_sql["unknown"], each["tenant_id"], each["campaigns"], ROWS, words):
                found[row["word"]] += row["devices"]
    return dict(found)
