"""Reports of one device or one campaign that arrive together: each is counted once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rollwave.engine import failpoints
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    incoming_report,
    insert_campaign,
    mark_sent,
)
from tests.in_process import ingest
from tests.support import our_records


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


async def test_a_canary_too_small_to_be_judged_at_each_report_is_judged_at_its_gate(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 40, rollout_strategy="canary", abort_threshold=0.1, abort_min_completed=30)
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    await ingest(pool, [incoming_report("dev-1", campaign, "SUCCESS"), incoming_report("dev-2", campaign, "FAILED")])
    assert await campaign_row(host, campaign) == ("RUNNING", 1, 1)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await campaign_row(host, campaign) == ("ABORTED", 1, 1)
    assert await breakdown(host, campaign) == {"SUCCESS": 1, "FAILED": 1, "SKIPPED": 38}


@pytest.mark.parametrize("tenants", [1, 3])
async def test_a_report_pauses_its_campaign_if_the_guardrail_cannot_be_read(
    pool: Pool, host: Connection, tenants: int
) -> None:
    """Reports of several tenants are written in one transaction."""
    names = ["north", "south", "west"][:tenants]
    ids = {tenant: await insert_campaign(host, 4, tenant=tenant) for tenant in names}
    for campaign in ids.values():
        await mark_sent(host, campaign, ["dev-1"])
    await host.execute("UPDATE ota_campaigns SET abort_threshold = 'NaN' WHERE id = $1", ids["north"])
    await ingest(pool, [incoming_report("dev-1", ids[tenant], "SUCCESS", tenant=tenant) for tenant in names])
    found = [await campaign_row(host, ids[tenant], tenant) for tenant in names]
    assert found == [("PAUSED", 1, 0), ("RUNNING", 1, 0), ("RUNNING", 1, 0)][:tenants]


@pytest.mark.parametrize("tenants", [1, 2])
async def test_an_abort_is_logged_once_it_is_committed(
    pool: Pool, host: Connection, caplog: pytest.LogCaptureFixture, tenants: int
) -> None:
    """The first transaction fails before its commit, and the reports are written again."""
    names = ["north", "south"][:tenants]
    ids = {tenant: await insert_campaign(host, 10, tenant=tenant, abort_min_completed=2) for tenant in names}

    async def report(device: str, status: str) -> None:
        await ingest(pool, [incoming_report(device, ids[tenant], status, tenant=tenant) for tenant in names])

    async def fail_once(point: failpoints.Failpoint) -> None:
        if point is failpoints.Failpoint.REPORTS_WRITTEN:
            failpoints.arm(None)
            raise LookupError

    for campaign in ids.values():
        await mark_sent(host, campaign, ["dev-1", "dev-2"])
    await report("dev-1", "FAILED")
    failpoints.arm(fail_once)
    try:
        await report("dev-2", "SUCCESS")
    finally:
        failpoints.arm(None)
    assert [await campaign_row(host, ids[tenant], tenant) for tenant in names] == [("ABORTED", 1, 1)] * tenants
    assert [record.message for record in our_records(caplog)].count("ota_campaign_auto_abort") == tenants


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
