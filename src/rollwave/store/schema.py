"""Converts PostgreSQL's errors about a missing schema, role or right to errors with a hint."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from rollwave.errors import ConfigurationError, SchemaMismatch

MIGRATE = "Run `rollwave migrate`."

ANY_LOGIN = "LOGIN"
"""Placeholder in a hint for a login whose name is unknown."""

_ENGINE = "pulse_app"

_MISSING = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)
_PREPARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


def no_schema() -> SchemaMismatch:
    """The error for a database that was never migrated."""
    return SchemaMismatch("the database has no schema of Rollwave", hint=MIGRATE)


def lacks(rights: Sequence[str]) -> SchemaMismatch:
    """The error for missing ``rights`` of the engine, a phrase for each."""
    more = f" (and {len(rights) - 1} more)" if len(rights) > 1 else ""
    return SchemaMismatch(f"the engine lacks a right: {rights[0]}{more}", hint=f"{MIGRATE} It grants what is missing.")


def explained(error: BaseException, login: str = ANY_LOGIN) -> BaseException:
    """Convert ``error`` to one of ours with a hint, or return it unchanged.

    PostgreSQL's messages may be in any language, so only names in them are used.

    Args:
        login: the role that the pool logs in as, for the hint.
    """
    match error:
        case asyncpg.InsufficientPrivilegeError() if _ENGINE in str(error):
            return SchemaMismatch(
                f"this login may not take the role {_ENGINE}",
                hint=f"Run `rollwave migrate --grant-to {login}`, or as a superuser: GRANT {_ENGINE} TO {login}",
            )
        case asyncpg.InsufficientPrivilegeError():
            return lacks([str(error)])
        case asyncpg.InvalidParameterValueError() if _ENGINE in str(error):
            return SchemaMismatch(f"PostgreSQL has no role {_ENGINE}", hint=MIGRATE)
        case _ if isinstance(error, _MISSING):
            return SchemaMismatch(
                f"the database does not have the schema that this program needs: {error}", hint=MIGRATE
            )
        case _ if isinstance(error, _PREPARED):
            return ConfigurationError(
                "the pool leads through a pooler that does not keep prepared statements apart",
                hint="Make the pool with statement_cache_size=0, or set max_prepared_statements in PgBouncer "
                "(1.21 or newer).",
            )
    return error
