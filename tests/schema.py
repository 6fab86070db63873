"""A database as an earlier version of Rollwave left it."""

from __future__ import annotations

from rollwave.store.migrate import migrations
from tests.engine import Connection


async def at_version(root: Connection, version: int) -> None:
    """Apply the migrations up to ``version``, one after another."""
    await root.execute(
        "CREATE TABLE rollwave_migrations (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for each in migrations()[:version]:
        async with root.transaction():
            await root.execute(each.sql)
            await root.execute(
                "INSERT INTO rollwave_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                each.version,
                each.name,
                each.checksum,
            )
