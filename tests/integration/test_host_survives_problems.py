"""A problem in a host's process: its own workers continue, and the problem is logged in one line with a hint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.engine import connect, insert_campaign
from tests.host.platform import make_host
from tests.host.running import host_process, log_lines, wait_for_heartbeats
from tests.servers import PgBouncer
from tests.support import Running, eventually, free_port, rollwave

DIRECT = "ROLLWAVE_DATABASE_DIRECT_URL"
SUBSCRIBED = "ota_status_listener_subscribed"

OWN = "own loop"

in_either_loop = pytest.mark.parametrize("loop", ["worker_loop", OWN])
"""Rollwave's own loop, or the loop of the host. A test that is the same in both uses the host's."""


@pytest.fixture
def pgbouncer(database: str) -> Iterator[PgBouncer]:
    with TemporaryDirectory(prefix="rollwave-tests-") as folder, PgBouncer(Path(folder), database) as pooler:
        yield pooler


@asynccontextmanager
async def hosting(database: str, log: Path, loop: str, *options: str, **settings: str) -> AsyncIterator[Running]:
    """The host's process, with five ticks a second. At the end it must still run, without leaked secrets."""
    how = ("--own-loop", *options) if loop == OWN else options
    async with host_process(database, log / "log", *how, **settings) as running:
        yield running
        await wait_for_heartbeats(running)
        assert "Traceback" not in running.output()


def problems(running: Running) -> list[str]:
    """Its warnings and errors, one line each."""
    return [line for line in log_lines(running) if line.startswith(("ERROR ", "WARNING ", "CRITICAL "))]


async def one_problem(running: Running, hint: str) -> str:
    """Wait for a problem, then for ten ticks and another try of the listener. Returns its only line."""
    await eventually(lambda: problems(running), what="the problem is logged")
    await wait_for_heartbeats(running, 30)
    [line] = problems(running)
    assert hint in line
    return line


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"OTA_TICK_INTERVAL": "soon"}, "Correct OTA_TICK_INTERVAL"),
        ({"MQTT_BROKER_URL": "ws://127.0.0.1:9001"}, "Use mqtt://host:1883"),
        ({"MQTT_BROKER_URL": "mqtts://h", "MQTT_CA_CERT": "/nowhere/ca.pem"}, "Name a PEM file"),
    ],
    ids=["a number that is none", "websockets", "a CA file that is missing"],
)
async def test_wrong_settings_do_not_stop_the_host(
    database: str, tmp_path: Path, settings: dict[str, str], hint: str
) -> None:
    async with hosting(database, tmp_path, OWN, **settings) as host:
        assert (await one_problem(host, hint)).startswith("ERROR rollwave.")


async def test_settings_of_a_usual_compose_file_are_logged_as_a_warning(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {
        "MQTT_BROKER_URL": broker.url.replace("mqtt://", "tcp://"),
        "MQTT_CA_CERT": "/nowhere/ca.pem",
        "LOG_LEVEL": "loud",
        "LOG_FORMAT": "text",
    }
    async with hosting(database, tmp_path, OWN, **settings) as host:
        await eventually(lambda: SUBSCRIBED in host.output(), what="it works")
        assert (await one_problem(host, "mqtts://")).startswith("WARNING rollwave.")


@in_either_loop
async def test_a_missing_migration_does_not_stop_the_host(
    empty_database: str, broker: EmbeddedBroker, tmp_path: Path, loop: str
) -> None:
    platform = await make_host(empty_database)
    async with hosting(platform.service, tmp_path, loop, MQTT_BROKER_URL=broker.url) as host:
        await one_problem(host, "Run `rollwave migrate`.")
        await asyncio.to_thread(platform.migrate)
        await eventually(lambda: SUBSCRIBED in host.output(), what="sending continues")


async def test_a_login_without_rights_does_not_stop_the_host(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    login = database.replace("postgres@", "host_nobody@", 1)
    async with connect(database) as root:
        await root.execute("CREATE ROLE host_nobody LOGIN")
        async with hosting(login, tmp_path, OWN, MQTT_BROKER_URL=broker.url) as host:
            await one_problem(host, "GRANT pulse_app TO host_nobody")
            granted = await asyncio.to_thread(
                rollwave, "migrate", "--grant-to", "host_nobody", env={"DATABASE_URL": database}
            )
            assert granted.returncode == 0, granted.stderr
            await eventually(lambda: SUBSCRIBED in host.output(), what="sending continues")


@in_either_loop
async def test_a_pooler_in_the_database_url_does_not_stop_the_host(
    pgbouncer: PgBouncer, broker: EmbeddedBroker, tmp_path: Path, loop: str
) -> None:
    async with hosting(pgbouncer.url, tmp_path, loop, "--pooler", MQTT_BROKER_URL=broker.url) as host:
        await one_problem(host, f"Set {DIRECT}")


async def test_a_direct_url_to_another_database_does_not_stop_the_host(
    pgbouncer: PgBouncer, empty_database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await migrate(empty_database)
    settings = {"MQTT_BROKER_URL": broker.url, DIRECT: empty_database}
    async with hosting(pgbouncer.url, tmp_path, OWN, "--pooler", **settings) as host:
        await one_problem(host, f"Set {DIRECT} to the same database")


@in_either_loop
async def test_an_unavailable_broker_does_not_stop_the_host(database: str, tmp_path: Path, loop: str) -> None:
    """Both commands and reports notice it. The first one to notice logs it."""
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    async with connect(database) as root, hosting(database, tmp_path, loop, MQTT_BROKER_URL=url) as host:
        await one_problem(host, "Check MQTT_BROKER_URL")
        with EmbeddedBroker(port):
            await eventually(lambda: SUBSCRIBED in host.output(), what="sending continues")
            await insert_campaign(root, 3)
            await eventually(lambda: "ota_devices_dispatched" in host.output(), what="sent")
        await eventually(lambda: len(problems(host)) > 1, what="unavailable again")
        await insert_campaign(root, 3, tenant="south")
        await wait_for_heartbeats(host, 30)
        events = [line.split()[2] for line in problems(host)[1:]]
        assert set(events) <= {"ota_status_listener_disconnected", "ota_mqtt_publish_failed"}
        assert len([line for line in problems(host) if "Check MQTT_BROKER_URL" in line]) == 2, (
            "logged once for each outage"
        )


@in_either_loop
async def test_an_unavailable_database_does_not_stop_the_host(
    postgres: EmbeddedPostgres, broker: EmbeddedBroker, tmp_path: Path, loop: str
) -> None:
    with EmbeddedPostgres(postgres.data_dir.with_name(f"away {loop}")) as server:
        await migrate(server.url)
        server.stop()
        async with hosting(server.url, tmp_path, loop, MQTT_BROKER_URL=broker.url) as host:
            assert "ota_database_unavailable" in await one_problem(host, "Check that PostgreSQL runs")
            server.start()
            await eventually(lambda: SUBSCRIBED in host.output(), what="sending continues")
            server.stop("immediate")
            await eventually(lambda: host.output().count("ota_database_unavailable") == 2, what="unavailable again")
            await wait_for_heartbeats(host, 30)
            assert len([line for line in problems(host) if "Check that PostgreSQL runs" in line]) == 2
