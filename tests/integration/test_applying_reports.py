"""Reports of one device or one campaign that arrive together: each is counted once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rollwave.engine import failpoints
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    breakdown,
    campaign_row,
    connect,
    incoming_report,
    insert_campaign,
    mark_sent,
)
from tests.in_process import ingest


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_a_campaign_reported_twice_by_a_device_in_a_batch_is_counted_and_aborted_once(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 10)
    await mark_sent(host, campaign, ["dev-1", "dev-2"], attempt=2)
    await ingest(
        pool,
        [
            incoming_report("dev-1", campaign, "FAILED"),
            incoming_report("dev-2", campaign, "SUCCESS", attempt=1),
            incoming_report("dev-2", campaign, "FAILED", attempt=2),
        ],
    )
    assert await campaign_row(host, campaign) == ("ABORTED", 0, 2)
    assert await breakdown(host, campaign) == {"FAILED": 2, "SKIPPED": 8}
    assert await host.fetchval("SELECT count(*) FROM ota_campaign_history WHERE event = 'aborted'") == 1


async def test_reports_of_a_device_are_applied_in_order_of_arrival(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 1, abort_threshold=1.0)
    await mark_sent(host, campaign, ["dev-1"])
    ingest, go_on = Ingest(pool, Settings()), asyncio.Event()

    async def hold_the_first(point: failpoints.Failpoint) -> None:
        if point is failpoints.Failpoint.PARSED:
            failpoints.arm(None)
            await go_on.wait()

    failpoints.arm(hold_the_first)
    try:
        batches = [
            asyncio.create_task(ingest.take_in([incoming_report("dev-1", campaign, word)]))
            for word in ("INSTALLING", "FAILED")
        ]
        assert not (await asyncio.wait({batches[1]}, timeout=0.3))[0], "the later report was applied first"
    finally:
        failpoints.arm(None)
        go_on.set()
    await asyncio.gather(*batches)
    assert await host.fetchval("SELECT failed_reason FROM ota_device_status") == "reported", (
        "the first report is missing"
    )
