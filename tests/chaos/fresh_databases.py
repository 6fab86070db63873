"""A PostgreSQL server that a schedule may crash, with a fresh database for each schedule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.engine import connect
from tests.policy_audit.claims import record_claims
from tests.servers import server_folder


@dataclass
class FreshDatabases:
    """A server, used by one schedule at a time."""

    server: EmbeddedPostgres
    folder: Path
    played: int = 0

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """A fresh database, and its URL."""
        self.played += 1
        name = f"run_{self.played}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE ready STRATEGY FILE_COPY")
        try:
            yield self.server.url.replace("@/postgres?", f"@/{name}?")
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, sql: str) -> None:
        async with connect(self.server.url) as connection:
            await connection.execute(sql)


@asynccontextmanager
async def fresh_databases() -> AsyncIterator[FreshDatabases]:
    """Servers for the block."""
    with server_folder() as folder:
        server = EmbeddedPostgres(folder / "data")
        try:
            await asyncio.to_thread(server.__enter__)
            async with connect(server.url) as connection:
                await connection.execute("CREATE DATABASE ready")
            ready = server.url.replace("@/postgres?", "@/ready?")
            await migrate(ready)
            async with connect(ready) as connection:
                await record_claims(connection)
            yield FreshDatabases(server, folder)
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
