"""Statements cost the same whatever the campaign's size, and whatever PostgreSQL believes of a table that has changed.

Planned for one row where there are twenty thousand, a join reads the whole campaign for each row: seconds, not
milliseconds. Each statement gets one second here, some fifty times what it takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.report import Report
from rollwave.domain.retry import Reason
from rollwave.engine.sweeper import SWEEP_LIMIT
from rollwave.store import campaigns, executions
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Times

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

DEVICES, BATCH = 20_000, 1000
TIMES = Times(answer=60, patience=60, in_all=600)


@asynccontextmanager
async def quick(pool: Pool, *, generic_plans: bool = False, queues: bool = False) -> AsyncIterator[Connection]:
    async with tenant_transaction(pool, "north", timeout=1.0, generic_plans=generic_plans, queues=queues) as connection:
        yield connection


async def insert(pool: Pool, tenant: str, devices: int) -> CampaignId:
    await pool.execute("INSERT INTO tenants VALUES ($1)", tenant)
    firmware = await pool.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url) VALUES ($1, '1', 'https://f.invalid')"
        " RETURNING id",
        tenant,
    )
    campaign: CampaignId = await pool.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, status) VALUES ($1, 'one', $2, 'RUNNING')"
        " RETURNING id",
        *(tenant, firmware),
    )
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
        " SELECT $1, $2, 'device-' || n FROM generate_series(1, $3) AS n",
        *(tenant, campaign, devices),
    )
    return campaign


@pytest.fixture(params=["never analyzed", "analyzed before the tenant came"])
async def campaign_id(request: pytest.FixtureRequest, pool: Pool) -> CampaignId:
    await pool.execute("ALTER TABLE ota_device_status SET (autovacuum_enabled = off)")
    if request.param != "never analyzed":
        await insert(pool, "south", DEVICES)
        await pool.execute("ANALYZE ota_device_status")
    return await insert(pool, "north", DEVICES)


async def test_a_campaign_that_nobody_analyzed(pool: Pool, campaign_id: CampaignId) -> None:
    async with quick(pool, queues=True) as connection:
        campaign = await campaigns.lock(connection, "north", campaign_id)
        claim = await executions.claim(connection, campaign, tokens=BATCH, fresh=BATCH, lease=60, in_all=600)
    half = BATCH // 2
    async with quick(pool, generic_plans=True) as connection:
        await executions.mark_sent(connection, "north", campaign_id, claim.commands[:half], TIMES)
        await executions.release(connection, "north", campaign_id, claim.commands[half:], delay=0.0, refused=False)
    async with quick(pool, queues=True) as connection:
        again = await executions.claim(connection, campaign, tokens=BATCH, fresh=0, lease=60, in_all=600)
    assert len(again.commands) == BATCH - half
    async with quick(pool, generic_plans=True) as connection:
        said = Report(campaign_id, ExecutionStatus.SUCCESS, 100)
        reports = [(each.device_id, said) for each in claim.commands]
        effects = await executions.apply_reports(connection, "north", reports, TIMES, max_attempts=3)
    assert sum(effect.applied for effect in effects) == BATCH
    async with quick(pool, queues=True) as connection:
        assert await executions.skip_unsent(connection, "north", campaign_id, limit=BATCH, reason="test") == BATCH


async def test_devices_that_went_silent(pool: Pool, campaign_id: CampaignId) -> None:
    await pool.execute(
        "UPDATE ota_device_status"
        " SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, started_at = now(), due_at = now()"
    )
    async with quick(pool, queues=True) as connection:
        campaign = await campaigns.lock(connection, "north", campaign_id)
        overdue = await executions.hold_overdue(connection, campaign, everyone=False, in_all=600, limit=SWEEP_LIMIT)
        silent = [each.device_id for each in overdue]
        half = SWEEP_LIMIT // 2
        again = [(each, Reason.NO_ANSWER, 1.0) for each in silent[:half]]
        await executions.postpone(connection, "north", campaign_id, again, in_all=600)
        await executions.fail(connection, campaign, [(each, Reason.NO_ANSWER, "silent") for each in silent[half:]])
    counted = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE status = 'FAILED'), count(*) FILTER (WHERE failed_attempt = 1)"
        " FROM ota_device_status"
    )
    assert counted is not None
    assert tuple(counted) == (SWEEP_LIMIT - half, SWEEP_LIMIT)
