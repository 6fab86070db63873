"""A transaction that PostgreSQL ends in favour of another one is tried again, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests import deadlocks
from tests.engine import (
    breakdown,
    campaign_row,
    connect,
    devices,
    ends,
    insert_campaign,
    said,
    says,
    sent_to,
    succeeds,
    worker,
)
from tests.support import eventually


async def test_reports_that_lose_a_deadlock_with_a_host_are_applied_again(database: str, pool: Pool) -> None:
    deadlocks.meant_in(database)
    names = ["dev-1", "dev-2"]
    async with connect(database) as host, connect(database) as looking:
        # The reports find out, not the host, however late it comes.
        name = await host.fetchval("SELECT current_database()")
        await host.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '3s'")
        await host.execute("SET deadlock_timeout = '1min'")
        await pool.expire_connections()
        campaign = await insert_campaign(host, names)
        await sent_to(host, campaign, names)
        touch = "UPDATE ota_device_status SET progress_pct = 1 WHERE device_id = $1"
        async with host.transaction():
            await host.execute(touch, "dev-2")
            taking_in = asyncio.create_task(
                Ingest(pool, Settings()).take_in([said(device, campaign, "SUCCESS") for device in names])
            )
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await eventually(lambda: looking.fetchval(waiting), what="the reports wait for dev-2")
            await host.execute(touch, "dev-1")  # and now each waits for the other
        await asyncio.wait_for(taking_in, 10)
        assert await breakdown(host, campaign) == {"SUCCESS": 2}
        assert await campaign_row(host, campaign) == ("RUNNING", 2, 0)

        async def counted() -> bool:
            return bool(
                await looking.fetchval("SELECT deadlocks = 1 FROM pg_stat_database WHERE datname = current_database()")
            )

        await eventually(counted, what="there was one")


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
        devices(broker.url, succeeds) as fleet,
        worker(database, broker.url, tmp_path / "first", **settings) as first,
        worker(database, broker.url, tmp_path / "second", logs="ota_tick_start", **settings) as second,
    ):
        await host.execute("SET default_transaction_isolation = 'read committed'")  # who looks on loses to nobody
        good = await insert_campaign(host, 120, rollout_rate=15)
        await ends(host, good, timeout=40)
        fleet.answer = says("FAILED")
        bad = await insert_campaign(host, 60, tenant="south", rollout_rate=15, max_in_flight=10)
        await ends(host, bad, "ABORTED", tenant="south")
        assert await campaign_row(host, good) == ("COMPLETED", 120, 0)
        failed = (await campaign_row(host, bad, "south"))[2]
        assert failed <= 10
        assert await breakdown(host, bad, "south") == {"FAILED": failed, "SKIPPED": 60 - failed}
        output = first.output() + second.output()
        assert "could not serialize access" not in output, "every transaction of ours is READ COMMITTED"
