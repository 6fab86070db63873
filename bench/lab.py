"""What everything is measured on: one PostgreSQL server, a fresh database and a fresh broker each time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import asyncpg

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.errors import RollwaveError
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.servers import Mosquitto, debian_mosquitto, debian_postgres

ROOM = 10
"""GB that a whole run may fill for a while."""

_TEMPLATE = "bench_template"
_numbers = count(1)

# So that a row tells when it was committed. It costs ten bytes a transaction; durability is the default's.
_SETTINGS = {"track_commit_timestamp": "on"}


class Database(NamedTuple):
    """A migrated database of its own."""

    name: str
    url: str
    pool: Pool


class Broker(NamedTuple):
    """A broker of its own; none of its sessions is older than it."""

    port: int
    pid: int


_MOSQUITTO = "set_tcp_nodelay true\n"
"""As `deploy/mosquitto` has it."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A PostgreSQL server, running, and brokers to be started."""

    postgres: EmbeddedPostgres
    folder: Path

    @contextmanager
    def broker(self, name: str = "") -> Iterator[Broker]:
        """``mosquitto`` or ``iotcore``; by default the first that is here."""
        name = name or ("mosquitto" if debian_mosquitto() else "iotcore")
        folder = Path(tempfile.mkdtemp(prefix="broker-", dir=self.folder))
        with Mosquitto(folder, config=_MOSQUITTO) if name == "mosquitto" else EmbeddedBroker() as broker:
            assert broker.pid
            yield Broker(broker.port, broker.pid)

    @asynccontextmanager
    async def database(self, template: str = _TEMPLATE) -> AsyncIterator[Database]:
        """A copy of ``template``, which nobody may be connected to; dropped after the block."""
        name = f"bench_{next(_numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            async with create_pool(self._url(name)) as pool:
                yield Database(name, self._url(name), pool)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def prepare(self) -> None:
        """Migrate the database that the others are cloned from."""
        await self.execute(f"CREATE DATABASE {_TEMPLATE}")
        await migrate(self._url(_TEMPLATE))

    async def execute(self, sql: str) -> None:
        """Run a statement that belongs to no database."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def _url(self, database: str) -> str:
        return self.postgres.url.replace("@/postgres?", f"@/{database}?")


@asynccontextmanager
async def open_lab(postgres: str, settings: Mapping[str, str]) -> AsyncIterator[Lab]:
    """Start the database server. ``postgres`` is ``embedded`` or ``debian``; ``settings`` are added to its own."""
    folder = Path(tempfile.mkdtemp(prefix="rollwave-bench-"))
    if (free := shutil.disk_usage(folder).free / 1e9) < ROOM:
        folder.rmdir()
        raise RollwaveError(
            f"{folder.parent} has {free:.0f} GB free, and the bench may need {ROOM}",
            hint="Name a folder on a larger disk: TMPDIR=/somewhere make bench",
        )
    folder.chmod(0o755)  # the server may run as another user
    binaries = debian_postgres() if postgres == "debian" else None
    try:
        with EmbeddedPostgres(folder / postgres, bin_dir=binaries, settings=_SETTINGS | dict(settings)) as server:
            lab = Lab(server, folder)
            await lab.prepare()
            yield lab
    finally:
        shutil.rmtree(folder)


async def settled(pool: Pool) -> None:
    """What was written while preparing is not for the measured time to flush."""
    await pool.execute("CHECKPOINT")
