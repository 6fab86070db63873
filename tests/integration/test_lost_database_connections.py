"""PostgreSQL connections that become silent, in a host's pool without a timeout, or that are ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from rollwave import Settings, readiness, run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.store.database import Connection, Pool, as_engine, create_pool, tenant_transaction
from tests.engine import (
    TENANT,
    always_succeeds,
    connect,
    devices,
    insert_campaign,
)
from tests.engine import Connection as HostConnection
from tests.support import eventually


@dataclass
class Network:
    """The network between a pool and PostgreSQL."""

    url: str = ""
    silent: bool = False
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry data until the network becomes silent. From then on carry nothing, not even the end of a connection."""
        with suppress(OSError):
            while data := await source.read(65536):
                if not self.silent:
                    target.write(data)
                    await target.drain()


@asynccontextmanager
async def before(database: str) -> AsyncIterator[Network]:
    where = urlsplit(database)
    given = parse_qs(where.query)
    folder, port = given.get("host", [where.hostname or ""])[0], given.get("port", [str(where.port)])[0]
    network = Network()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if folder.startswith("/"):
            source, target = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        else:
            source, target = await asyncio.open_connection(folder, int(port))
        try:
            await asyncio.gather(network.carry(reader, target), network.carry(source, writer))
        finally:
            target.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        network.serving.add(task)
        task.add_done_callback(network.serving.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    network.url = f"postgresql://{where.username}@127.0.0.1:{server.sockets[0].getsockname()[1]}{where.path}"
    try:
        yield network
    finally:
        server.close()
        for task in list(network.serving):
            task.cancel()
        await asyncio.gather(*network.serving, return_exceptions=True)
        await server.wait_closed()
        for _ in range(3):  # An aborted transport closes its socket in a later iteration of the event loop.
            await asyncio.sleep(0)


@pytest.fixture
async def network(database: str) -> AsyncIterator[Network]:
    async with before(database) as network:
        yield network


@pytest.fixture
async def pool(network: Network) -> AsyncIterator[Pool]:
    pool = asyncpg.create_pool(network.url, min_size=0, ssl=False)
    await pool
    yield pool
    pool.terminate()


async def test_with_a_silent_database_readiness_answers_and_coroutines_can_be_cancelled(
    database: str, broker: EmbeddedBroker, network: Network, pool: Pool
) -> None:
    settings = Settings(mqtt_broker_url=broker.url, tick_interval=0.2)
    async with connect(database) as host, devices(broker.url, always_succeeds):
        campaign = await insert_campaign(host, 400, rollout_rate=1)
        tasks = [
            asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.1, settings=settings)),
            asyncio.create_task(run_ota_status_listener(pool, settings=settings)),
        ]

        async def some_sent() -> bool:
            return bool(await host.fetchval("SELECT sent > 3 FROM ota_campaigns WHERE id = $1", campaign))

        await eventually(some_sent, what="it works")
        network.silent = True
        began = time.monotonic()
        found = await readiness(pool, settings=settings)
        # Nine seconds, and three each for a rollback and for the connection's return to its pool.
        assert (found["status"], time.monotonic() - began < 17) == ("not ready", True)
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=25)
        assert done == set(tasks)


async def transact(connection: Connection, network: Network, silent_from: str) -> None:
    network.silent = silent_from == "BEGIN"
    async with asyncio.timeout(10), as_engine(connection, "SELECT", timeout=0.5):
        network.silent = silent_from == "SELECT"
        await connection.fetchval("SELECT 1", timeout=0.5)
        network.silent = True


@pytest.mark.parametrize("silent_from", ["BEGIN", "SELECT", "COMMIT"])
async def test_a_transaction_on_a_silent_database_ends_and_closes_its_connection(
    network: Network, pool: Pool, silent_from: str
) -> None:
    async with pool.acquire() as connection:
        with pytest.raises(TimeoutError):
            await transact(connection, network, silent_from)
        assert pool.get_size() == 0


@pytest.fixture
async def host(database: str) -> AsyncIterator[HostConnection]:
    async with connect(database) as connection:
        yield connection


async def test_a_transaction_that_loses_its_connection_raises_that_error(database: str, host: HostConnection) -> None:
    async with create_pool(database) as pool:

        async def sleep() -> None:
            async with tenant_transaction(pool, TENANT) as connection:
                await connection.execute("SELECT pg_sleep(60)")

        async def terminated() -> bool:
            found = await host.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database()"
            )
            return bool(found)

        sleeping = asyncio.create_task(sleep())
        await eventually(terminated, what="asleep")
        with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
            await sleeping
        async with tenant_transaction(pool, TENANT) as connection:
            assert await connection.fetchval("SELECT 1") == 1
