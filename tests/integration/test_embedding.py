"""The coroutines in a host's process: how many connections they use, and which arguments they accept."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import asyncpg
import prometheus_client
import pytest
import structlog

from rollwave import Settings, campaign_overview, readiness, run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.worker import host_pool
from rollwave.errors import DatabaseUnavailable, NotFound
from rollwave.store.database import Pool, create_pool
from tests.api import CAMPAIGNS, calling
from tests.engine import (
    TENANT,
    Connection,
    always_succeeds,
    connect,
    devices,
    insert_campaign,
    subscribed_listener,
    wait_until_ended,
)
from tests.proxy import proxy
from tests.shipped import ShippedMosquitto
from tests.support import end, environment, eventually, free_port, our_records

SECRET = "hunter2"
OK = {"database": "ok", "schema": "ok", "identity": "ok", "broker": "ok", "reports": "ok"}


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", "of something else")


@asynccontextmanager
async def embedded(pool: Pool, **arguments: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run both coroutines with the same arguments. At the end, neither may have ended by itself."""
    tasks = [
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.1, **arguments)),
        asyncio.create_task(run_ota_status_listener(pool, **arguments)),
    ]
    try:
        yield tasks
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            await end(task)


def settings_for(broker: EmbeddedBroker | str, **more: Any) -> Settings:
    url = broker if isinstance(broker, str) else broker.url
    return Settings(mqtt_broker_url=url, tick_interval=0.2, **more)


def problems(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in our_records(caplog) if each.levelno >= logging.WARNING]


async def test_settings_passed_as_an_argument_run_a_campaign(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 5)
    async with devices(broker.url, always_succeeds), embedded(pool, settings=settings_for(broker)):
        await wait_until_ended(host, campaign)
    assert host_pool.host_pools == {}, "sessions are closed with the coroutines"


async def test_the_listener_holds_every_slot(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    """Otherwise nothing would be sent, since reports of a slot without a listener would wait."""
    campaign = await insert_campaign(host, 5)
    settings = settings_for(broker, listener_slots=2)
    async with devices(broker.url, always_succeeds), embedded(pool, settings=settings):
        await wait_until_ended(host, campaign)
        assert await host.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 2
        assert (await readiness(pool))["checks"] == OK


@pytest.mark.parametrize("slots", [1, 4])
async def test_a_pool_that_the_listener_would_use_up_is_refused(
    database: str, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, slots: int
) -> None:
    """Otherwise neither the host nor the engine would get a connection."""
    async with asyncpg.create_pool(database, min_size=0, max_size=slots) as pool:
        async with embedded(pool, settings=settings_for(broker, listener_slots=slots)):
            await eventually(lambda: problems(caplog), what="the problem is logged")
            for _ in range(3):
                await run_ota_campaign_tick(pool, settings=settings_for(broker, listener_slots=slots))
            assert await pool.fetchval("SELECT 1", timeout=5) == 1
        [record] = problems(caplog)
    assert record.message == "ota_not_ready"
    assert vars(record)["hint"].startswith(f"Make the pool with max_size={slots + 3} or more")


async def test_a_pool_with_one_connection_more_than_slots_is_enough(
    database: str, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 5)
    async with (
        asyncpg.create_pool(database, min_size=0, max_size=2) as pool,
        devices(broker.url, always_succeeds),
        embedded(pool, settings=settings_for(broker)),
    ):
        await wait_until_ended(host, campaign)


async def test_a_hosts_own_loop_reuses_one_broker_session(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(host, 8, rollout_rate=1)
    async with proxy(broker.url) as between, subscribed_listener(pool):
        settings = settings_for(between.url)

        async def all_sent() -> bool:
            await run_ota_campaign_tick(pool, settings=settings)
            return bool(await host.fetchval("SELECT sent = 8 FROM ota_campaigns WHERE id = $1", campaign))

        await eventually(all_sent, what="each in a tick of its own")
        assert between.connections == 1


async def test_a_session_is_closed_when_ticks_have_stopped(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    await insert_campaign(host, 1)
    async with subscribed_listener(pool):
        found = host_pool.HostPool(pool, idle_seconds=0.3, check_every_seconds=0.05)
        host_pool.host_pools[id(pool)] = found
        await run_ota_campaign_tick(pool, settings=settings_for(broker))
        assert list(host_pool.host_pools.values()) == [found]
        session = await (await found.dispatching(settings_for(broker))).command_session.session()
        await eventually(lambda: not session.connected, timeout=10, what="closed")
        assert host_pool.host_pools == {}


def test_the_end_of_the_event_loop_closes_every_session(database: str, broker: EmbeddedBroker) -> None:
    """Two loops, one after the other, each with its own pool. Nothing delays their end."""

    async def once() -> None:
        async with create_pool(database) as pool, connect(database) as host, subscribed_listener(pool):
            campaign = await insert_campaign(host, 1)
            await run_ota_campaign_tick(pool, settings=settings_for(broker))
            assert await host.fetchval("SELECT sent FROM ota_campaigns WHERE id = $1", campaign) == 1

    for _ in range(2):
        began = time.monotonic()
        asyncio.run(once())
        assert host_pool.host_pools == {}
        assert time.monotonic() - began < 10


async def test_a_pool_of_another_event_loop_is_an_error(
    database: str, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Pool:
        async def create() -> Pool:
            pool = asyncpg.create_pool(database, min_size=0)
            await pool
            return pool

        return asyncio.run(create())

    pool = await asyncio.to_thread(make)
    async with embedded(pool, settings=settings_for(broker)):
        await eventually(lambda: problems(caplog), what="the problem is logged")
        for _ in range(3):
            await run_ota_campaign_tick(pool, settings=settings_for(broker))
        [record] = problems(caplog)
    assert (record.message, "asyncio.run" in vars(record)["hint"]) == ("ota_not_ready", True)


@pytest.mark.parametrize("state", ["closed", "not awaited"])
async def test_an_unusable_pool_is_logged_with_a_hint(
    database: str, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    pool = asyncpg.create_pool(database, min_size=0)
    if state == "closed":
        await pool
        await pool.close()
    async with embedded(pool, settings=settings_for(broker)):
        await eventually(lambda: problems(caplog), what="the problem is logged")
        for _ in range(3):
            await run_ota_campaign_tick(pool, settings=settings_for(broker))
        [record] = problems(caplog)
    assert record.message == "ota_database_unavailable"
    assert "pool" in vars(record)["hint"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://rollwave:{secret}@127.0.0.1:not-a-port/fleet",
        "postgresql://rollwave:{secret}@[::1/fleet",
        "postgresql://rollwave:{secret}/fleet",
        "rollwave:{secret}@127.0.0.1/fleet",
        "mysql://rollwave:{secret}@127.0.0.1/fleet",
        "postgresql://rollwave@127.0.0.1:{port}/fleet?password={secret}&sslmode=nonsense",
        "postgresql://rollwave:{secret}@127.0.0.1:{port}/fleet",
    ],
)
async def test_an_unreachable_direct_url_is_logged_with_a_hint(
    pool: Pool, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    settings = settings_for(broker, database_direct_url=url.format(secret=SECRET, port=free_port()))
    async with embedded(pool, settings=settings):
        await eventually(lambda: problems(caplog), what="the problem is logged")
        for _ in range(3):
            await run_ota_campaign_tick(pool, settings=settings)
        [record] = problems(caplog)
    assert vars(record)["hint"]
    assert SECRET not in caplog.text + repr(vars(record))


async def test_a_broker_that_refuses_the_login_ends_nothing_of_the_host(
    pool: Pool, shipped_mosquitto: ShippedMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reason has its own hint."""
    ca_cert = str(shipped_mosquitto.ca_cert)
    for given, hint in (
        ({}, "Set MQTT_CA_CERT"),
        ({"mqtt_ca_cert": ca_cert, "mqtt_username": "engine", "mqtt_password": SECRET}, "Check MQTT_USERNAME"),
    ):
        caplog.clear()
        async with embedded(pool, settings=settings_for(shipped_mosquitto.url, **given)):
            await eventually(lambda: problems(caplog), what="the problem is logged")
            assert hint in vars(problems(caplog)[0])["hint"]
            assert SECRET not in caplog.text


async def test_an_argument_that_is_not_a_pool_is_a_programming_error() -> None:
    nothing: Any = None
    for work in (run_ota_campaign_tick(nothing), run_ota_status_listener(nothing)):
        with pytest.raises(TypeError, match=r"asyncpg\.Pool is wanted, and this is NoneType"):
            await work


async def test_an_error_in_the_hosts_own_tick_does_not_end_the_loop(
    pool: Pool, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = 0

    async def tick(_: Pool) -> None:
        nonlocal ticks
        ticks += 1
        raise ValueError("of the host")

    looping = asyncio.create_task(worker_loop(tick, pool, interval=0.01, settings=settings_for(broker)))
    await eventually(lambda: ticks > 5)
    assert not looping.done()
    looping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looping
    [record] = problems(caplog)
    assert (record.message, bool(record.exc_info and record.exc_info[2])) == ("ota_tick_failed", True)


async def test_a_problem_is_logged_once_with_its_exception_and_hint(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """A host whose log format prints no fields still sees the problem and the hint."""
    for _ in range(3):
        await run_ota_campaign_tick(pool)
    [record] = problems(caplog)
    printed = logging.Formatter("%(message)s").format(record)
    assert printed.splitlines() == [
        "ota_not_ready",
        "rollwave.errors.ConfigurationError: MQTT_BROKER_URL cannot be used: it is not an MQTT URL",
        "hint: Use mqtt://host:1883, or mqtts://host:8883 for TLS.",
    ]


async def test_an_argument_that_is_not_settings_is_an_error(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    settings: Any = {"mqtt_broker_url": "mqtt://h"}
    tasks = [
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, settings=settings)),
        asyncio.create_task(run_ota_status_listener(pool, settings=settings)),
    ]
    await eventually(lambda: problems(caplog), what="the problem is logged")
    await run_ota_campaign_tick(pool, settings=settings)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        await end(task)
    [record] = problems(caplog)
    assert (record.message, "settings=Settings(" in vars(record)["hint"]) == ("ota_not_ready", True)
    assert (await readiness(pool, settings=settings))["checks"]["settings"].endswith("this is dict")


async def test_the_listener_ends_when_every_slot_has_ended(
    pool: Pool, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each finishes its batch, however long another one takes."""
    began, ended = [0], [0]
    run = Listener.run

    async def slowly(self: Listener, *given: Any, **named: Any) -> None:
        began[0] += 1
        mine = began[0]
        try:
            await run(self, *given, **named)
        finally:
            await asyncio.sleep(mine * 0.3)
            ended[0] += 1

    monkeypatch.setattr(Listener, "run", slowly)
    listening = asyncio.create_task(run_ota_status_listener(pool, settings=settings_for(broker, listener_slots=3)))
    await eventually(lambda: began[0] == 3, what="in each slot")
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert ended[0] == 3


async def test_metrics_are_in_the_registry_that_the_host_names(pool: Pool, broker: EmbeddedBroker) -> None:
    registry = prometheus_client.CollectorRegistry()
    await run_ota_campaign_tick(pool, settings=settings_for(broker), registry=registry)
    await run_ota_campaign_tick(pool, settings=settings_for(broker), registry=registry)
    assert registry.get_sample_value("rollwave_campaigns", {"status": "RUNNING"}) == 0
    assert b"process_" not in prometheus_client.generate_latest(registry)


async def test_a_registry_with_metrics_of_the_same_names_stops_nothing(
    pool: Pool, host: Connection, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Counter("rollwave_reports", "of the host", registry=registry)
    campaign = await insert_campaign(host, 1)
    async with devices(broker.url, always_succeeds), embedded(pool, settings=settings_for(broker), registry=registry):
        await wait_until_ended(host, campaign)
    [record] = problems(caplog)
    assert (record.message, "registry=" in vars(record)["hint"]) == ("ota_metrics_not_registered", True)


PAGE = """
import asyncio, sys
import asyncpg, prometheus_client
import rollwave
from rollwave import run_ota_campaign_tick

def page():
    return prometheus_client.generate_latest().decode()

async def main():
    assert "rollwave" not in page()
    async with asyncpg.create_pool(sys.argv[1], min_size=0) as pool:
        await run_ota_campaign_tick(pool)
        await run_ota_campaign_tick(pool)
    assert page().count("# TYPE rollwave_campaigns gauge") == 1
    assert 'rollwave_campaigns{status="RUNNING"} 0.0' in page()
    assert page().count("# TYPE python_info gauge") == 1

asyncio.run(main())
"""


def test_metrics_are_in_the_hosts_default_registry(database: str, broker: EmbeddedBroker) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PAGE, database],
        env=environment(MQTT_BROKER_URL=broker.url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_readiness_returns_what_readyz_returns(database: str, pool: Pool, broker: EmbeddedBroker) -> None:
    settings = settings_for(broker)
    before = await readiness(pool, settings=settings)
    assert before["status"] == "not ready"
    assert "no listener is subscribed" in before["checks"]["reports"]

    async with create_pool(database) as of_another_process, embedded(pool, settings=settings):

        async def ready() -> bool:
            return (await readiness(pool))["status"] == "ok"

        await eventually(ready, what="ready")
        for each in (await readiness(pool), await readiness(of_another_process, settings=settings)):
            assert each == {"status": "ok", "checks": OK}


async def test_readiness_raises_no_error(
    empty_database: str, database: str, pool: Pool, broker: EmbeddedBroker
) -> None:
    nothing: Any = None
    assert (await readiness(nothing))["checks"] == {"checks": "failed: TypeError; see the log"}
    assert (await readiness(pool))["checks"]["settings"].startswith("MQTT_BROKER_URL")
    async with create_pool(empty_database) as empty:
        found = await readiness(empty, settings=settings_for(broker))
        assert found["checks"]["schema"] == "the database has no schema of Rollwave"
    away = await readiness(pool, settings=settings_for(f"mqtt://127.0.0.1:{free_port()}"))
    assert "cannot be reached" in away["checks"]["broker"]
    closed = asyncpg.create_pool(database, min_size=0)
    await closed
    await closed.close()
    assert (await readiness(closed, settings=settings_for(broker)))["status"] == "not ready"


async def test_a_host_reads_what_the_page_of_a_campaign_shows(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 5)
    before = await campaign_overview(pool, TENANT, campaign, settings=settings_for(broker))
    assert (before["headline"]["rule"], before["devices"]["PENDING"]) == ("cannot_send", 5)
    async with devices(broker.url, always_succeeds), embedded(pool, settings=settings_for(broker)):
        await wait_until_ended(host, campaign)
        found = await campaign_overview(pool, TENANT, campaign)
    assert found["headline"] == {"level": "ok", "rule": "none", "text": "Completed: 5 of 5 devices run 2.1.0"}
    assert found["completed_at"].tzinfo is not None
    async with calling(pool, TENANT) as client:
        shown = (await client.get(f"{CAMPAIGNS}/{campaign}/overview")).json()
    assert shown.keys() == found.keys()
    with pytest.raises(NotFound):
        await campaign_overview(pool, "south", campaign)


async def test_an_overview_without_a_database_is_an_error_that_a_host_can_catch(broker: EmbeddedBroker) -> None:
    async with asyncpg.create_pool(f"postgresql://x@127.0.0.1:{free_port()}/x", min_size=0) as away:
        with pytest.raises(DatabaseUnavailable, match="the database cannot be used"):
            await campaign_overview(away, TENANT, 1, settings=settings_for(broker))


async def test_the_hosts_trace_id_is_in_the_logs(
    pool: Pool, host: Connection, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rollwave")
    variable: ContextVar[str] = ContextVar("trace_id")
    variable.set("of the host")
    campaign = await insert_campaign(host, 1)
    async with (
        devices(broker.url, always_succeeds),
        embedded(pool, settings=settings_for(broker), trace_id=variable),
    ):
        await wait_until_ended(host, campaign)
    traced = {vars(each)["trace_id"] for each in caplog.records if hasattr(each, "trace_id")}
    assert traced == {"of the host"}
    caplog.clear()
    await run_ota_campaign_tick(pool, settings=settings_for(broker), trace_id=lambda: 4711)
    assert [vars(each)["trace_id"] for each in caplog.records if each.message == "ota_tick_start"] == ["4711"]


async def test_the_hosts_log_context_is_kept(
    pool: Pool, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="rollwave")
    with structlog.contextvars.bound_contextvars(region="eu", name="ota worker", module="workers"):
        await run_ota_campaign_tick(pool, settings=settings_for(broker))
        assert structlog.contextvars.get_contextvars()["name"] == "ota worker"
    [started] = [vars(each) for each in caplog.records if each.message == "ota_tick_start"]
    assert (started["region"], started["name_"], started["module_"]) == ("eu", "ota worker", "workers")
    assert started["name"] == "rollwave.tick"


class _Plain(asyncio.SelectorEventLoop):
    """Connects without Happy Eyeballs, as uvloop's event loop does."""

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, ssl: Any = None, family: Any = 0
    ) -> Any:
        return await super().create_connection(protocol_factory, host, port, ssl=ssl, family=family)


def test_an_event_loop_without_happy_eyeballs_works(database: str, broker: EmbeddedBroker) -> None:
    async def run() -> None:
        pool = asyncpg.create_pool(database, min_size=0)
        await pool
        async with connect(database) as host:
            campaign = await insert_campaign(host, 3)
            async with devices(broker.url, always_succeeds), embedded(pool, settings=settings_for(broker)):
                await wait_until_ended(host, campaign)
        await pool.close()

    with asyncio.Runner(loop_factory=_Plain) as runner:
        runner.run(run())
