"""Deadlocks: the engine causes none, and repeats a transaction that PostgreSQL ended because of one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.ids import DeviceId
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store import executions, listeners
from rollwave.store.database import Pool, create_pool, tenant_transaction
from rollwave.store.executions import Claimed, Times
from tests import deadlocks
from tests.engine import (
    TENANT,
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    devices,
    incoming_report,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.support import eventually


async def test_reports_that_lose_a_deadlock_with_a_host_are_applied_again(database: str, pool: Pool) -> None:
    deadlocks.expected_in(database)
    names = ["dev-1", "dev-2"]
    async with connect(database) as host, connect(database) as looking:
        # PostgreSQL ends the reports' transaction, not the host's, however late the host comes.
        name = await host.fetchval("SELECT current_database()")
        await host.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '3s'")
        await host.execute("SET deadlock_timeout = '1min'")
        await pool.expire_connections()
        campaign = await insert_campaign(host, names)
        await mark_sent(host, campaign, names)
        touch = "UPDATE ota_device_status SET progress_pct = 1 WHERE device_id = $1"
        async with host.transaction():
            await host.execute(touch, "dev-2")
            taking_in = asyncio.create_task(
                Ingest(pool, Settings()).take_in([incoming_report(device, campaign, "SUCCESS") for device in names])
            )
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await eventually(lambda: looking.fetchval(waiting), what="the reports wait for dev-2")
            await host.execute(touch, "dev-1")  # Now each transaction waits for the other.
        await asyncio.wait_for(taking_in, 10)
        assert await breakdown(host, campaign) == {"SUCCESS": 2}
        assert await campaign_row(host, campaign) == ("RUNNING", 2, 0)

        async def counted() -> bool:
            return bool(
                await looking.fetchval("SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = current_database()")
            )

        await eventually(counted, what="one was found")


async def test_campaigns_complete_where_the_default_isolation_is_serializable(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with connect(database) as host:
        name = await host.fetchval("SELECT current_database()")
        await host.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    settings = {
        "ROLLWAVE_LEASE": "1",
        "ROLLWAVE_REPORT_BATCH": "5",
        "ROLLWAVE_CLAIM_BATCH": "5",
        "OTA_TICK_INTERVAL": "0.1",
    }
    async with (
        connect(database) as host,
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "first", **settings) as first,
        worker(database, broker.url, tmp_path / "second", logs="ota_tick_start", **settings) as second,
    ):
        await host.execute("SET default_transaction_isolation = 'read committed'")  # The observer waits for no lock.
        good = await insert_campaign(host, 120, rollout_rate=15)
        await wait_until_ended(host, good, timeout=40)
        fleet.answer = answer_with("FAILED")
        bad = await insert_campaign(host, 60, tenant="south", rollout_rate=15, max_in_flight=10)
        await wait_until_ended(host, bad, "ABORTED", tenant="south")
        assert await campaign_row(host, good) == ("COMPLETED", 120, 0)
        failed = (await campaign_row(host, bad, "south"))[2]
        assert failed <= 10
        assert await breakdown(host, bad, "south") == {"FAILED": failed, "SKIPPED": 60 - failed}
        output = first.output() + second.output()
        assert "could not serialize access" not in output, "the engine's transactions are READ COMMITTED"


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_concurrent_sending_reports_and_upkeep_cause_no_deadlock(database: str, host: Connection) -> None:  # noqa: C901  one operation in each function
    names = [f"dev-{number}" for number in range(40)]
    campaigns = [await insert_campaign(host, names, abort_threshold=1.0, progress_timeout=0.05) for _ in range(2)]
    for campaign in campaigns:
        await mark_sent(host, campaign, names)
    await host.execute("UPDATE ota_device_status SET attempt = 2")
    deadline = time.monotonic() + 4
    times = Times(0.05, 0.05, 1000)

    def some() -> list[Claimed]:
        return [Claimed(DeviceId(each), 2) for each in random.sample(names, 30)]

    async with create_pool(database, size=12) as pool, AsyncExitStack() as stack:
        upkeep = Upkeep(pool, Settings())
        lock = await stack.enter_async_context(listeners.acquire_slot(pool, 0))
        assert lock is not None
        await lock.announce()

        async def mark() -> None:
            async with tenant_transaction(pool, TENANT) as connection:
                await executions.mark_sent(connection, TENANT, random.choice(campaigns), some(), times)

        async def release() -> None:
            async with tenant_transaction(pool, TENANT) as connection:
                await executions.release(
                    connection,
                    TENANT,
                    random.choice(campaigns),
                    some(),
                    delay=0.01,
                    refusal=random.choice([None, Refusal.REJECTED]),
                )

        async def report() -> None:
            words = ["DOWNLOADING", "DOWNLOADING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED"]
            everyone = [(device, campaign) for device in names for campaign in campaigns]
            batch = [
                incoming_report(device, campaign, random.choice(words), attempt=random.choice([None, 1, 2]))
                for device, campaign in random.sample(everyone, 60)
            ]
            await Ingest(pool, Settings()).take_in(
                batch
            )  # It has its own ingest, since each ingest writes one batch at a time.

        async def look_after() -> None:
            await upkeep.look_after(campaign_ref(random.choice(campaigns)))

        async def again() -> None:
            await host.execute(
                "UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 2, sent_attempt = 1,"
                " failed_attempt = 0, completed_at = NULL, due_at = now()"
                " WHERE (campaign_id, device_id) IN (SELECT campaign_id, device_id FROM ota_device_status"
                " ORDER BY campaign_id, device_id FOR UPDATE SKIP LOCKED)"
            )
            await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", random.choice(campaigns))

        async def end(listening: asyncio.Task[None]) -> None:
            await asyncio.sleep(deadline - time.monotonic())
            listening.cancel()

        async def repeat(operation: Any) -> None:
            while time.monotonic() < deadline:
                await operation()

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(lock.listen("so that deadlines run", lambda: None))
            group.create_task(end(listening))
            for operation in (mark, mark, release, release, report, report, report, look_after, look_after, again):
                group.create_task(repeat(operation))
    assert await host.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
