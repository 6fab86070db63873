"""Converts errors about values that a host's own tables refuse, so that they name the field of the request.

A host's columns may be narrower than ours, and its tables may have their own keys, checks and triggers. Nothing is
checked before a write. PostgreSQL's error about a value does not name the column, so after such an error each value is
tried against the type of its column.
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
    asyncpg.DatatypeMismatchError,  # a column has another type than in the contract
    asyncpg.UndefinedFunctionError,  # there is no operator for such a type
)
_REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.WithCheckOptionViolationError,
    asyncpg.PLPGSQLError,  # raised by a trigger
    *_MISMATCHES,
    asyncpg.GeneratedAlwaysError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # ON CONFLICT with a deferrable key
)

_OUT_OF_RANGE = "out of int"
"""A part of the driver's own error about a number that is too large for the column."""

_MISMATCH_HINT = (
    "Compare the column's type with the one in Rollwave's own table. If they agree, report a bug in Rollwave."
)
_HINT = "The table belongs to the service that made it: write such a row the way that service does."


@dataclass(frozen=True, slots=True)
class Written:
    """Values of a request that are written to one column.

    ``field``: their name in the API; empty: they are not from the caller. ``quoted``: they are members of a list, and
    the message quotes the refused one.
    """

    table: str
    column: str
    values: Sequence[object]
    field: str = ""
    quoted: bool = False


def fields(table: str, **values: object) -> list[Written]:
    """One value for each column. The API's field has the column's name."""
    return [Written(table, column, [value], column) for column, value in values.items()]


@asynccontextmanager
async def refusing(
    pool: Pool, written: Sequence[Written] = (), *, also: Callable[[], Awaitable[Written]] | None = None
) -> AsyncIterator[None]:
    """Convert PostgreSQL's errors in the block, a transaction that writes to tables which may be a host's.

    ``written`` is read after the error, so a long transaction may replace its content for each batch. ``also`` reads
    more values from the database after an error.

    Raises:
        InvalidInput: a value does not fit its column, a check or foreign key of that column refuses it, or the
            database's encoding lacks a character.
        Conflict: another refusal: a unique key, a column that Rollwave does not know, a trigger.
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
    """The error to raise. None: this is an outage or a bug of Rollwave."""
    by_server = error.severity is not None
    # Only an error raised in a function, such as a trigger, has a context. A policy's error has no class of its own.
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
    if isinstance(error, _MISMATCHES):  # the caller cannot change it, and it may be a bug of Rollwave
        _log.warning("ota_type_mismatch", error=_line(error), hint=_MISMATCH_HINT)
    return Conflict(message, hint=_HINT)


def _about_value(written: Written, value: object, why: str) -> InvalidInput | Conflict:
    column = f"the column {written.table}.{written.column} of this installation"
    if written.field:
        return InvalidInput(f"{f'{value!r} ' * written.quoted}does not fit into {column}: {why}", field=written.field)
    subject = repr(value) if written.quoted else "what Rollwave writes to it"
    return Conflict(f"{column} does not accept {subject}: {why}", hint=_HINT)


async def _columns(pool: Pool, error: asyncpg.PostgresError) -> set[tuple[str, str]]:
    """The table and column of an error; for a check or a foreign key, all its columns."""
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
    """The first value that does not fit the type of its column, and PostgreSQL's error message."""
    silent = {table for table in {each.table for each in written} if await _fault(pool, table, ["{}"])}
    for each in written:
        if each.table in silent:  # a column's domain refuses NULL, so a row with one value is always refused
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
    """PostgreSQL's error about one of these JSON objects as a row of the table; empty: none."""
    try:
        async with system_transaction(pool) as connection:
            await connection.fetchval(_sql[table], rows)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        return _line(error)
    return ""


def _line(error: asyncpg.PostgresError) -> str:
    """The error's message on one line. Its detail is left out, as it quotes whole rows."""
    return " ".join(str(error.args[0]).split())
