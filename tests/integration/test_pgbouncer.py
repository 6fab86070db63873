"""PgBouncer in transaction mode before the database: campaigns run through it, and slot locks bypass it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.settings import Settings
from tests.auditor import auditing
from tests.engine import (
    always_succeeds,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto, PgBouncer
from tests.support import end, eventually, rollwave

DIRECT = "ROLLWAVE_DATABASE_DIRECT_URL"


@pytest.fixture
def pgbouncer(database: str) -> Iterator[PgBouncer]:
    # Not in pytest's own folder: it runs as another user, who may not enter that folder.
    with TemporaryDirectory(prefix="rollwave-tests-") as folder, PgBouncer(Path(folder), database) as pooler:
        yield pooler


async def test_a_campaign_completes_through_pgbouncer_with_two_workers(
    pgbouncer: PgBouncer, database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {DIRECT: database, "ROLLWAVE_LEASE": "2"}
    async with (
        connect(database) as host,
        auditing(database),
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(pgbouncer.url, mosquitto.url, tmp_path / "first", **settings) as first,
        worker(pgbouncer.url, mosquitto.url, tmp_path / "second", logs="ota_tick_start", **settings) as second,
    ):
        campaigns = {
            await insert_campaign(host, 100, tenant=each, rollout_rate=10): each for each in ("north", "south")
        }
        await eventually(lambda: len(fleet.commands) > 60, what="some commands are sent")
        assert not events(second, "ota_status_listener_subscribed"), (
            "one worker listens, the other is ready to take over"
        )
        assert await host.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 1
        first.process.kill()
        for campaign, tenant in campaigns.items():
            await wait_until_ended(host, campaign, tenant=tenant, timeout=60)
            assert await campaign_row(host, campaign, tenant) == ("COMPLETED", 100, 0)
        assert len(events(second, "ota_status_listener_subscribed")) == 1
        assert not any('"level": "error"' in each.output() for each in (first, second))
    assert {command.attempt for command in fleet.commands} == {1}


async def test_a_hosts_pool_through_pgbouncer_works(
    pgbouncer: PgBouncer, database: str, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MQTT_BROKER_URL": broker.url, "OTA_TICK_INTERVAL": "0.2", DIRECT: database}.items():
        monkeypatch.setenv(name, value)
    async with (
        connect(database) as host,
        devices(broker.url, always_succeeds),
        asyncpg.create_pool(pgbouncer.url, statement_cache_size=pgbouncer.statement_cache, min_size=1) as pool,
    ):
        campaign = await insert_campaign(host, 30)
        running = [
            asyncio.create_task(run_ota_status_listener(pool)),
            asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.2)),
        ]
        try:
            await wait_until_ended(host, campaign)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        assert await campaign_row(host, campaign) == ("COMPLETED", 30, 0)


async def test_session_locks_are_never_taken_through_pgbouncer(
    pgbouncer: PgBouncer, database: str, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise two workers could have the lock at once, without noticing."""

    def tries() -> int:
        return sum(each.message == "ota_not_ready" for each in caplog.records)

    settings = Settings(mqtt_broker_url=broker.url)
    async with (
        connect(database) as host,
        asyncpg.create_pool(pgbouncer.url, statement_cache_size=0, min_size=1) as pool,
    ):
        listening = asyncio.create_task(run_ota_status_listener(pool, settings=settings))
        await eventually(tries, what="the problem is logged")
        assert not listening.done()
        assert await host.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        await end(listening)
    assert [DIRECT in vars(each)["hint"] for each in caplog.records if each.message == "ota_not_ready"] == [True]


async def test_mixed_up_prepared_statements_are_logged_with_a_hint(
    pgbouncer: PgBouncer, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A host that made its pool as for a direct connection to PostgreSQL."""
    settings = Settings(mqtt_broker_url=broker.url, database_direct_url=pgbouncer.url)
    async with asyncpg.create_pool(pgbouncer.url, min_size=0) as pool:

        async def logged() -> list[str]:
            await asyncio.gather(*(run_ota_campaign_tick(pool, settings=settings) for _ in range(8)))
            return [vars(each)["hint"] for each in caplog.records if each.message == "ota_not_ready"]

        hints = await eventually(logged, what="the problem is logged")
    assert all("statement_cache_size=0" in each for each in hints)


async def test_commands_that_pgbouncer_breaks_name_the_direct_url(
    pgbouncer: PgBouncer, database: str, broker: EmbeddedBroker
) -> None:
    settings = {"DATABASE_URL": pgbouncer.url, "MQTT_BROKER_URL": broker.url}
    for command in ("worker", "migrate", "doctor"):
        finished = await asyncio.to_thread(rollwave, command, env=settings)
        assert finished.returncode == 1
        assert DIRECT in finished.stdout + finished.stderr, finished
    settings[DIRECT] = database
    assert (await asyncio.to_thread(rollwave, "migrate", env=settings)).stdout.startswith("up to date")
    doctor = await asyncio.to_thread(rollwave, "doctor", env=settings)
    assert doctor.returncode == 0, doctor.stdout
    assert "ok       pooler" in doctor.stdout
    settings[DIRECT] = pgbouncer.url
    doctor = await asyncio.to_thread(rollwave, "doctor", env=settings)
    assert "problem  pooler" in doctor.stdout
