"""The embedded servers keep their data, and leave no process behind, however their owner ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from rollwave.embedded.broker import HOST, EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.errors import RollwaveError
from tests.servers import Mosquitto
from tests.support import environment, eventually, psql

OWNER = """
import sys, time
from pathlib import Path
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as postgres, EmbeddedBroker() as broker:
    print(postgres.pid, broker.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A new folder that PostgreSQL's user can enter, unlike ``tmp_path``."""
    with tempfile.TemporaryDirectory(prefix="rollwave-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
async def test_no_server_outlives_the_process_that_started_it(data_dir: Path, end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir)],
        env=environment(TMPDIR=str(data_dir.parent)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as owner:
        assert owner.stdout
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert [alive(pid) for pid in pids] == [True, True]
        owner.send_signal(end)
    await eventually(lambda: not any(map(alive, pids)), what="both servers are gone")


async def test_a_crash_of_the_embedded_postgres_loses_no_commit(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as server:
        psql(server.url, "CREATE TABLE kept AS SELECT 7 AS n")
        server.stop("immediate")
        assert not server.running
        server.start()
        assert psql(server.url, "SELECT n FROM kept") == "7"
        assert psql(server.url, "SHOW fsync") == "on"
    with EmbeddedPostgres(data_dir) as again:
        assert psql(again.url, "SELECT n FROM kept") == "7"


async def test_two_tests_have_separate_databases(database: str, empty_database: str, postgres_log: Path) -> None:
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert int(psql(database, count)) > 0
    assert psql(empty_database, count) == "0"
    assert postgres_log.read_text()


@pytest.mark.parametrize("postgres", ["debian"], indirect=True)
async def test_the_oldest_supported_postgres_accepts_the_schema(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert connection.get_server_version().major >= 15
        assert await connection.fetchval("SELECT to_regclass('ota_device_status')") == "ota_device_status"
    finally:
        await connection.close()


def test_an_embedded_server_that_cannot_start_says_why(data_dir: Path) -> None:
    with pytest.raises(RollwaveError, match=r"PostgreSQL did not start: .+") as caught:
        EmbeddedPostgres(data_dir, settings={"wal_level": "none such"}).__enter__()
    assert str(data_dir) in caught.value.hint


def test_the_embedded_broker_restarts_on_its_ports(broker: EmbeddedBroker) -> None:
    for _ in range(2):
        for url in (broker.url, broker.url_v4):
            socket.create_connection((HOST, int(url.rpartition(":")[2]))).close()
        broker.stop()
        assert not broker.running
        broker.start()


def test_an_occupied_port_is_named(broker: EmbeddedBroker) -> None:
    with pytest.raises(RollwaveError, match=f"port {broker.port} of {HOST} is in use"):
        EmbeddedBroker(broker.port).__enter__()


def test_mosquitto_restarts_on_its_port(mosquitto: Mosquitto) -> None:
    mosquitto.crash()
    mosquitto.start()
    socket.create_connection((HOST, mosquitto.port)).close()
