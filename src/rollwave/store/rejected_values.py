"""What a host's own tables refuse, in words that name the field.

A host's columns may be narrower than ours, and its tables have keys, checks and triggers of their own. Nothing is
checked before a write. PostgreSQL's error about a value does not name the column: after such an error, each value is
tried alone against the type of its column.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from rollwave.errors import Conflict, InvalidInput
from rollwave.log import get_logger
from rollwave.store.database import Pool, system_transaction
from rollwave.store.outage import FOREIGN_TEXT, is_outage
from rollwave.store.queries import load

_log = get_logger("database")
_sql = load("rejected_values")

_MISMATCHES = (
    asyncpg.DatatypeMismatchError,  # a column of another type than the contract's
    asyncpg.UndefinedFunctionError,  # no operator for such a type
)
_REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.WithCheckOptionViolationError,
    asyncpg.PLPGSQLError,  # a trigger's RAISE
    *_MISMATCHES,
    asyncpg.GeneratedAlwaysError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # ON CONFLICT over a deferrable key
)

_OUT_OF_RANGE = "out of int"
"""Is in the driver's error about a number that is too large for the column, which it raises itself."""

_MISMATCH_HINT = (
    "Compare the column's type with the one in Rollwave's own table. If they agree, report a bug in Rollwave."
)
_HINT = "The table belongs to the service that made it: write such a row the way that service does."


@dataclass(frozen=True, slots=True)
class Written:
    """Values of a request that are written to one column.

    ``field`` is what the API calls them; empty: the caller does not give them. ``quoted``: they are members of a list,
    and the message quotes the one that it is about.
    """

    table: str
    column: str
    values: Sequence[object]
    field: str = ""
    quoted: bool = False


def fields(table: str, **values: object) -> list[Written]:
    """One value for each column, where the API has the column's name for it."""
    return [Written(table, column, [value], column) for column, value in values.items()]


@asynccontextmanager
async def refusing(
    pool: Pool, written: Sequence[Written] = (), *, also: Callable[[], Awaitable[Written]] | None = None
) -> AsyncIterator[None]:
    """Around a transaction that writes to tables which may be a host's: what they refuse becomes an error of ours.

    ``written`` is read after the error, so that a long transaction may replace what is in it as it goes on. ``also``
    reads more values from the database, once PostgreSQL has refused one.

    Raises:
        InvalidInput: the column of a field does not take its value, a check or a foreign key is about that column, or
            the database's encoding lacks a character.
        Conflict: anything else that the table refuses: a key, a column that Rollwave does not know, a trigger.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        if also is not None and isinstance(error, asyncpg.DataError):
            written = [*written, await also()]
        explained = await _explain(pool, error, written)
        if explained is None:
            raise
        raise explained from error


async def _explain(
    pool: Pool, error: asyncpg.PostgresError, written: Sequence[Written]
) -> InvalidInput | Conflict | None:
    """None: it is an outage, or a fault of ours."""
    by_server = error.severity is not None
    # Only what a function says, such as a trigger, has a context. What a policy says is not in a class of its own.
    by_host = isinstance(error, _REFUSALS) or error.context or error.server_source_function == "ExecWithCheckOptions"
    if is_outage(error) or not by_host:
        return None
    if isinstance(error, asyncpg.DataError) or error.data_type_name:
        if misfit := await _misfit(pool, written):
            return _about_value(*misfit)
        if not by_server and _OUT_OF_RANGE not in str(error):
            return None
    if isinstance(error, FOREIGN_TEXT):
        return InvalidInput(f"the database cannot hold this text: {_line(error)}")
    columns = await _columns(pool, error)
    about = (each for each in written if each.field and each.values and (each.table, each.column) in columns)
    subject = f"the table {error.table_name}" if error.table_name else "the database"
    message = f"{subject} of this installation refuses this row: {_line(error)}"
    if named := next(about, None):
        return InvalidInput(message, field=named.field)
    if isinstance(error, _MISMATCHES):  # the caller can do nothing about it, and it may be a fault of ours
        _log.warning("ota_type_mismatch", error=_line(error), hint=_MISMATCH_HINT)
    return Conflict(message, hint=_HINT)


def _about_value(written: Written, value: object, why: str) -> InvalidInput | Conflict:
    column = f"the column {written.table}.{written.column} of this installation"
    if written.field:
        return InvalidInput(f"{f'{value!r} ' * written.quoted}does not fit into {column}: {why}", field=written.field)
    subject = repr(value) if written.quoted else "what Rollwave writes to it"
    return Conflict(f"{column} does not hold {subject}: {why}", hint=_HINT)


async def _columns(pool: Pool, error: asyncpg.PostgresError) -> set[tuple[str, str]]:
    """Table and column that an error is about; of a check or a foreign key, all its columns."""
    table = error.table_name
    if not table:
        return set()
    if error.column_name:
        return {(table, error.column_name)}
    if not isinstance(error, asyncpg.CheckViolationError | asyncpg.ForeignKeyViolationError):
        return set()
    async with system_transaction(pool) as connection:
        rows = await connection.fetch(_sql["columns_of_constraint"], error.schema_name, table, error.constraint_name)
    return {(table, row["column_name"]) for row in rows}


async def _misfit(pool: Pool, written: Sequence[Written]) -> tuple[Written, object, str] | None:
    """The first value that the type of its column does not take, and what PostgreSQL says of it."""
    silent = {table for table in {each.table for each in written} if await _fault(pool, table, ["{}"])}
    for each in written:
        if each.table in silent:  # a type in it takes no NULL, whatever the value of another column
            continue
        values = [value for value in each.values if value is not None]
        while (why := await _fault(pool, each.table, _rows(each.column, values))) and len(values) > 1:
            half = values[: len(values) // 2]
            values = half if await _fault(pool, each.table, _rows(each.column, half)) else values[len(half) :]
        if why:
            return each, values[0], why
    return None


def _rows(column: str, values: Sequence[object]) -> list[str]:
    return [json.dumps({column: value}) for value in values]


async def _fault(pool: Pool, table: str, rows: Sequence[str]) -> str:
    """What PostgreSQL has against one of these JSON objects as a row of the table; empty: nothing."""
    try:
        async with system_transaction(pool) as connection:
            await connection.fetchval(_sql[table], rows)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        return _line(error)
    return ""


def _line(error: asyncpg.PostgresError) -> str:
    """Its message alone, in one line: what PostgreSQL adds quotes whole rows."""
    return " ".join(str(error.args[0]).split())
