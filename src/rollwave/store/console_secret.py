"""The secret with which the console signs its cookies. The migration made it; all processes share it."""

from __future__ import annotations

from rollwave.errors import SchemaMismatch
from rollwave.store.database import Pool, system_transaction
from rollwave.store.queries import load

_sql = load("console_secret")


async def read(pool: Pool) -> str:
    """The installation's secret, in a transaction without a tenant: transactions of a tenant do not see it.

    Raises:
        SchemaMismatch: the row was deleted.
    """
    async with system_transaction(pool) as connection:
        secret: str | None = await connection.fetchval(_sql["read"])
    if secret is None:
        raise SchemaMismatch(
            "the table rollwave_console_secret is empty, so nobody can log in to the console",
            hint="Insert a row with a random secret of at least 32 characters.",
        )
    return secret
