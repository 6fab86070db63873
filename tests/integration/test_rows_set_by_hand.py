"""What a host's own SQL leaves in a row, and what must become of such a device all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.engine.commands import abort_campaign
from rollwave.engine.stop import skip_rest
from rollwave.engine.upkeep.gates import Upkeep
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Effect, Times
from tests.engine import TENANT, Connection, breakdown, connect, device_row, insert_campaign


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def report(pool: Pool, campaign: int, word: ExecutionStatus, *, max_attempts: int = 3) -> Effect:
    async with tenant_transaction(pool, TENANT) as connection:
        [effect] = await executions.apply_reports(
            connection,
            TENANT,
            [(DeviceId("dev-1"), Report(CampaignId(campaign), word))],
            Times(60, 60, 600),
            max_attempts=max_attempts,
        )
    return effect


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_device_set_back_and_not_sent_to_is_skipped_by_an_abort(
    host: Connection, pool: Pool, *, by_hand: bool
) -> None:
    campaign = await insert_campaign(host, 1)
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    await report(pool, campaign, ExecutionStatus.SUCCESS)
    await host.execute("UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL")
    if by_hand:
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED'")
        due = CampaignRef(TenantId(TENANT), CampaignId(campaign), CampaignStatus.ABORTED)
        await skip_rest(pool, due)
        await Upkeep(pool, Settings.load()).look_after(due)
        assert await host.fetchval("SELECT settled_at FROM ota_campaigns"), "the engine is done with it"
    else:
        await abort_campaign(pool, TENANT, campaign, actor="operator")
    assert await breakdown(host, campaign) == {"SKIPPED": 1}


async def test_what_an_earlier_worker_sent_counts_as_the_first_attempt(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 1)
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    await report(pool, campaign, ExecutionStatus.INSTALLING)
    row = await device_row(host, campaign, "dev-1")
    assert (row["attempt"], row["sent_attempt"], row["heard_attempt"]) == (1, 1, 1)
    assert row["due_at"], "its silence will be noticed, and be in history, like any other device's"


async def test_a_device_that_an_earlier_worker_sent_to_gets_no_attempt_too_many(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 1, max_attempts=1, retry_on=["reported"])
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    assert not (await report(pool, campaign, ExecutionStatus.FAILED)).retried
    assert await breakdown(host, campaign) == {"FAILED": 1}
