"""What everything is measured on: one PostgreSQL server, a fresh database and a fresh broker each time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import asyncpg

from bench.fleet import TENANT
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.mqtt.payload import encode_command
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.servers import Mosquitto, debian_postgres

_TEMPLATE = "bench_template"
_numbers = count(1)

# So that a row tells when it was committed. It costs ten bytes a transaction; durability is the default's.
_SETTINGS = {"track_commit_timestamp": "on"}

# Each is an update of its own, so that the table is as worn as a dispatch leaves it.
_CLAIMED = "attempt = 1, due_at = now() + interval '30 s'"
_MARKED = "status = 'DOWNLOADING', sent_attempt = 1, started_at = now(), due_at = now() + interval '30 min'"

_FIRMWARE_URL, _VERSION, _CHECKSUM = "https://files.invalid/firmware.bin", "2.1.0", "0" * 64


@dataclass(frozen=True, slots=True)
class Lab:
    """A PostgreSQL server, running, and brokers to be started."""

    postgres: EmbeddedPostgres
    folder: Path

    @contextmanager
    def broker(self, name: str) -> Iterator[int]:
        """The port of a broker of its own: ``mosquitto`` or ``iotcore``. None of its sessions is older than it."""
        folder = Path(tempfile.mkdtemp(prefix="broker-", dir=self.folder))
        with Mosquitto(folder) if name == "mosquitto" else EmbeddedBroker() as broker:
            yield broker.port

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The URL of a migrated database, dropped after the block."""
        name = f"bench_{next(_numbers)}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        try:
            yield self._url(name)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def campaign(
        self, devices: int, *, sent: bool = False, analyzed: bool = False
    ) -> AsyncIterator[tuple[str, Pool, int]]:
        """A database with one campaign in it, not started, or ``sent`` to every device; its URL, a pool, its id.

        Where it is not ``analyzed`` PostgreSQL knows nothing of its rows, as when a campaign is started right
        after it was created.
        """
        async with self.database() as url, create_pool(url) as pool:
            campaign = await _insert_campaign(pool, devices, sent=sent)
            if analyzed:
                await pool.execute("ANALYZE")
            # What was written while preparing is not for the measured time to flush.
            await pool.execute("CHECKPOINT")
            yield url, pool, campaign

    async def prepare(self) -> None:
        """Migrate the database that the others are cloned from."""
        await self._execute(f"CREATE DATABASE {_TEMPLATE}")
        await migrate(self._url(_TEMPLATE))

    def _url(self, database: str) -> str:
        return self.postgres.url.replace("@/postgres?", f"@/{database}?")

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@asynccontextmanager
async def open_lab(postgres: str, settings: Mapping[str, str]) -> AsyncIterator[Lab]:
    """Start the database server. ``postgres`` is ``embedded`` or ``debian``; ``settings`` are added to its own."""
    folder = Path(tempfile.mkdtemp(prefix="rollwave-bench-"))
    folder.chmod(0o755)  # the server may run as another user
    binaries = debian_postgres() if postgres == "debian" else None
    try:
        with EmbeddedPostgres(folder / postgres, bin_dir=binaries, settings=_SETTINGS | dict(settings)) as server:
            lab = Lab(server, folder)
            await lab.prepare()
            yield lab
    finally:
        shutil.rmtree(folder)


def command_body(campaign: int) -> bytes:
    """What the engine sends for a campaign of :meth:`Lab.campaign`."""
    return encode_command(campaign, _FIRMWARE_URL, _VERSION, _CHECKSUM)


async def _insert_campaign(pool: Pool, devices: int, *, sent: bool) -> int:
    """As a host would with its own SQL."""
    await pool.execute("INSERT INTO tenants (tenant_id) VALUES ($1)", TENANT)
    firmware = await pool.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256)"
        " VALUES ($1, $2, $3, $4) RETURNING id",
        *(TENANT, _VERSION, _FIRMWARE_URL, _CHECKSUM),
    )
    campaign: int = await pool.fetchval(
        "INSERT INTO ota_campaigns"
        " (tenant_id, name, firmware_version_id, rollout_rate, status, total_devices, sent, command)"
        " VALUES ($1, 'bench', $2, 1000000000, 'CREATED', $3, $4, $5) RETURNING id",
        *(TENANT, firmware, devices, devices if sent else 0, "{}" if sent else None),
    )
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
        " SELECT $1, $2, 'device-' || lpad(n::text, 7, '0') FROM generate_series(0, $3 - 1) AS n",
        *(TENANT, campaign, devices),
    )
    if sent:
        for step in (_CLAIMED, _MARKED):
            await pool.execute(f"UPDATE ota_device_status SET {step}")
    return campaign
