"""The primary is lost and its replica is promoted, or a replica answers at the primary's address: the campaign ends."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from rollwave.embedded.postgres import UNPRIVILEGED, EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.auditor import auditing
from tests.engine import (
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto, crashable_postgres
from tests.support import eventually, free_port, psql

TOTAL = 120
SETTINGS = {"ROLLWAVE_LEASE": "2"}


@dataclass(frozen=True, slots=True)
class ReplicatedPair:
    """A primary with synchronous replication, and its replica. Both listen on port 5432."""

    primary: EmbeddedPostgres
    replica: EmbeddedPostgres
    primary_host: str
    replica_host: str


@pytest.fixture
def replicated_pair() -> Iterator[ReplicatedPair]:
    hosts = [f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}.{last}" for last in (1, 2)]
    with ExitStack() as stack:
        primary = stack.enter_context(crashable_postgres(listen_addresses=hosts[0]))
        with (primary.data_dir / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 127.0.0.0/8 trust\n")
        asyncio.run(migrate(primary.url))
        psql(primary.url, "SELECT pg_reload_conf()")
        copy = primary.data_dir.with_name("replica")
        copy_of(primary, copy)
        replica = stack.enter_context(EmbeddedPostgres(copy, settings={"listen_addresses": hosts[1]}))
        psql(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        psql(primary.url, "SELECT pg_reload_conf()")
        yield ReplicatedPair(primary, replica, *hosts)


def copy_of(primary: EmbeddedPostgres, folder: Path) -> None:
    """The data directory that a replica starts from."""
    folder.mkdir()
    primary.own(folder)
    subprocess.run(
        [str(primary.bin_dir / "pg_basebackup"), "-R", "-c", "fast", "-D", str(folder), "-d", primary.url],
        check=True,
        capture_output=True,
        user=UNPRIVILEGED if os.geteuid() == 0 else None,
        env={"PATH": os.defpath},
    )


def unresponsive_machine(host: str) -> socket.socket:
    """A machine at this address that accepts connections and never answers."""
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    silent.bind((host, 5432))
    silent.listen(100)
    return silent


async def test_workers_continue_on_a_promoted_replica(
    replicated_pair: ReplicatedPair, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    url = f"postgresql://postgres@{replicated_pair.primary_host}:5432,{replicated_pair.replica_host}:5432/postgres"
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(f"{url}?target_session_attrs=read-write", mosquitto.url, tmp_path / "log", **SETTINGS) as it,
    ):
        async with connect(replicated_pair.primary.url) as host:
            campaign = await insert_campaign(host, TOTAL, rollout_rate=5)
        await eventually(lambda: len(fleet.commands) > 30, what="some commands are sent")
        await asyncio.to_thread(replicated_pair.primary.stop, "immediate")
        with closing(unresponsive_machine(replicated_pair.primary_host)):
            psql(replicated_pair.replica.url, "SELECT pg_promote()")
            async with auditing(replicated_pair.replica.url), connect(replicated_pair.replica.url) as host:
                await wait_until_ended(host, campaign, timeout=60)
                assert await campaign_row(host, campaign) == ("COMPLETED", TOTAL, 0)
                assert await breakdown(host, campaign) == {"SUCCESS": TOTAL}
        assert {command.attempt for command in fleet.commands} == {1}
        assert len(events(it, "ota_database_unavailable")) == len(events(it, "ota_database_back")) <= 2
        assert events(it, "ota_identity_undecided") == [], "a promoted replica is the same database"
        assert it.process.returncode is None


async def test_a_worker_reconnects_when_its_server_becomes_read_only(
    replicated_pair: ReplicatedPair, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """The address leads to the replica for a while. Connections to it stay open, and are not used again."""
    health = free_port()
    async with (
        address(replicated_pair.primary_host) as (virtual, port),
        devices(mosquitto.url, always_succeeds) as fleet,
    ):
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        async with (
            connect(replicated_pair.primary.url) as host,
            worker(url, mosquitto.url, tmp_path / "log", "--port", str(health), **SETTINGS) as it,
        ):
            campaign = await insert_campaign(host, TOTAL, rollout_rate=5)
            await eventually(lambda: len(fleet.commands) > 20, what="some commands are sent")
            virtual.lead_to(replicated_pair.replica_host, cut=True)
            await eventually(lambda: database_is(health, "only a replica answers"), timeout=20, what="noticed")
            tries = virtual.connections
            await eventually(lambda: virtual.connections > tries + 2, timeout=30, what="it goes on trying")
            virtual.lead_to(replicated_pair.primary_host, cut=False)
            await wait_until_ended(host, campaign, timeout=60)
            assert await breakdown(host, campaign) == {"SUCCESS": TOTAL}
            await eventually(lambda: database_is(health, "ok"), what="ready")
            assert len(events(it, "ota_database_unavailable")) == len(events(it, "ota_database_back")) <= 2
        assert {command.attempt for command in fleet.commands} == {1}


async def database_is(port: int, words: str) -> bool:
    """Whether /readyz says this about the database."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/readyz", timeout=15)
    state: str = answer.json()["checks"]["database"]
    return state.startswith(words)


class MovableAddress:
    """A port that can be moved from one server to another, like a virtual IP address."""

    def __init__(self, host: str) -> None:
        self.connections = 0
        self._host = host
        self._open: set[asyncio.StreamWriter] = set()

    def lead_to(self, host: str, *, cut: bool) -> None:
        """Lead new connections to this server. ``cut`` ends open connections."""
        self._host = host
        for each in self._open if cut else ():
            each.transport.abort()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(self._host, 5432)
        self._open |= {writer, there_writer}
        try:
            with suppress(OSError):
                await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))
        finally:
            for each in (writer, there_writer):
                each.transport.abort()
                self._open.discard(each)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def address(host: str) -> AsyncIterator[tuple[MovableAddress, int]]:
    """The address, and its port."""
    it = MovableAddress(host)
    server = await asyncio.start_server(it.pass_on, "127.0.0.1", 0)
    async with server:
        yield it, server.sockets[0].getsockname()[1]
        it.lead_to(host, cut=True)
