"""Statements cost the same whatever the campaign's size, and whatever PostgreSQL believes of a table that has changed.

Planned for one row where there are twenty thousand, a join reads the whole campaign for each row: seconds, not
milliseconds. Each statement gets one second here, some fifty times what it takes. And each hot statement's plan is the
one that it was written for: by these indexes and no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg.pool import PoolConnectionProxy

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.intake import tally
from rollwave.domain.report import Report
from rollwave.domain.retry import Reason
from rollwave.engine.sweeper import SWEEP_LIMIT
from rollwave.store import campaigns, executions, read_models
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Times
from rollwave.store.queries import load

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


TABLE = "ota_device_status"
NOUNS = ("executions", "campaigns", "read_models")
_PLAN = re.compile(r"plan:\n((?:\t.*\n)+)")


@dataclass
class Plans:
    """How PostgreSQL carried out each statement: by which paths to the tables, and how many pages it looked at."""

    paths: dict[str, set[str]] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)

    def read(self, log: str) -> None:
        """What auto_explain wrote."""
        names = {sql: f"{noun}.{name}" for noun in NOUNS for name, sql in load(noun).items()}
        for told in map(json.loads, _PLAN.findall(log)):
            name, top = names.get(told["Query Text"].strip()), told["Plan"]
            if name is not None:
                self.paths.setdefault(name, set()).update(_paths(top))
                pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
                self.pages[name] = max(pages, self.pages.get(name, 0))


def _paths(plan: dict[str, Any]) -> Iterator[str]:
    """The indexes by which executions were found, or the kind of scan where it was by none."""
    if not plan["Actual Loops"]:
        return
    if plan.get("Index Name", "").startswith(TABLE):
        yield plan["Index Name"]
    elif plan.get("Relation Name") == TABLE and plan["Node Type"] not in ("ModifyTable", "Bitmap Heap Scan"):
        yield plan["Node Type"]
    for each in plan.get("Plans", ()):
        yield from _paths(each)


@asynccontextmanager
async def explaining(database: str, log: Path) -> AsyncIterator[tuple[Pool, Plans]]:
    """A pool of which PostgreSQL tells how it carried out each statement."""
    plans, before = Plans(), log.stat().st_size

    async def explain(connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        await connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;"
            " SET auto_explain.log_timing = off; SET auto_explain.log_buffers = on; SET auto_explain.log_format = json"
        )

    async with asyncpg.create_pool(database, min_size=0, max_size=1, setup=explain) as pool:
        yield pool, plans
    plans.read(log.read_bytes()[before:].decode())


WAITING, OPEN, LOOKED_FOR, KEY = (f"{TABLE}_{name}" for name in ("waiting", "open", "looked_for", "pkey"))
PINNED = {
    "executions.claim": {WAITING, OPEN, "Tid Scan"},
    "executions.mark_sent": {KEY},
    "executions.release": {KEY},
    "executions.apply_reports": {KEY},
    "executions.adopt_in_progress": {OPEN, "Tid Scan"},
    "executions.bring_forward": {OPEN, "Tid Scan"},
    "executions.hold_overdue": {OPEN},
    "executions.skip_unsent": {WAITING, OPEN, "Tid Scan"},
    "executions.outlook": {WAITING, OPEN, KEY},
    "executions.next_due": {OPEN},
    "executions.in_flight": {OPEN},
    "read_models.devices": {KEY},
    "read_models.devices_looked_for": {LOOKED_FOR},
    "read_models.campaign": set(),
}

CROWD, ROWS = 6000, 100

PAGES = 20
"""That a statement may look at for each row, at most: a row's own, old and new, and those of its entries in indexes."""


@pytest.fixture(
    params=["never analyzed", "analyzed before the tenant came", "analyzed while full", "analyzed when empty"]
)
async def crowd(request: pytest.FixtureRequest, pool: Pool) -> CampaignId:
    """A campaign of which a fifth waits, of another size than PostgreSQL believes; many others beside it."""
    believed = request.param
    await pool.execute("ALTER TABLE ota_device_status SET (autovacuum_enabled = off)")
    await insert(pool, "south", CROWD)
    if believed == "analyzed before the tenant came":
        await pool.execute("ANALYZE")
    campaign_id = await insert(pool, "north", CROWD)
    await pool.execute(
        "UPDATE ota_campaigns SET pending = $1, downloading = 0, installing = 0, skipped = 0, total_devices = $1",
        CROWD,
    )
    over = "UPDATE ota_device_status SET status = 'SUCCESS', attempt = 1, sent_attempt = 1, completed_at = now()"
    if believed == "analyzed while full":
        await pool.execute("ANALYZE")
        await pool.execute(f"{over} WHERE id % 5 > 0")
    elif believed == "analyzed when empty":
        await pool.execute(f"{over} WHERE id % 5 > 0")
        await pool.execute("UPDATE ota_device_status SET status = 'SUCCESS' WHERE id % 5 = 0")
        await pool.execute("ANALYZE")
        await pool.execute("UPDATE ota_device_status SET status = 'PENDING' WHERE id % 5 = 0")
    else:
        await pool.execute(f"{over} WHERE id % 5 > 0")
    return campaign_id


async def test_each_hot_statement_goes_by_its_own_index(database: str, postgres_log: Path, crowd: CampaignId) -> None:
    async with explaining(database, postgres_log) as (pool, plans):
        for _ in range(2):
            async with tenant_transaction(pool, "north", queues=True) as connection:
                campaign = await campaigns.lock(connection, "north", crowd)
                claim = await executions.claim(connection, campaign, tokens=ROWS, fresh=ROWS, lease=60, in_all=600)
                await campaigns.spend(connection, campaign, opens_window=True, used=ROWS, first_time=ROWS, command="{}")
            assert len(claim.commands) == ROWS
            half = ROWS // 2
            async with tenant_transaction(pool, "north", generic_plans=True) as connection:
                await executions.mark_sent(connection, "north", crowd, claim.commands[:half], TIMES)
                await executions.release(connection, "north", crowd, claim.commands[half:], delay=60, refused=False)
                said = Report(crowd, ExecutionStatus.SUCCESS, 100)
                reports = [(each.device_id, said) for each in claim.commands[: half // 2]]
                effects = await executions.apply_reports(connection, "north", reports, TIMES, max_attempts=3)
                moved = tally((crowd, each.was, each.became) for each in effects)
                await campaigns.count(connection, "north", moved)
            for device, due_at in zip(
                claim.commands[half - 2 : half], ("NULL", "now() + interval '1 day'"), strict=True
            ):
                await pool.execute(
                    f"UPDATE ota_device_status SET due_at = {due_at} WHERE device_id = $1 AND tenant_id = 'north'",
                    device.device_id,
                )
            async with tenant_transaction(pool, "north", queues=True) as connection:
                await executions.outlook(connection, campaign)
                await executions.next_due(connection, campaign)
                await executions.in_flight(connection, campaign, up_to=ROWS)
                await executions.adopt_in_progress(connection, campaign, patience=60)
                await executions.bring_forward(connection, campaign, longest=600, patience=60)
                await executions.hold_overdue(connection, campaign, everyone=False, in_all=600, limit=ROWS)
            async with tenant_transaction(pool, "north", generic_plans=True) as connection:
                await executions.skip_unsent(connection, "north", crowd, limit=ROWS, reason="test")
            await read_models.campaign(pool, "north", crowd)
            await read_models.devices(pool, "north", crowd, status=None, limit=ROWS, cursor="device-2")
            for status in read_models.LOOKED_FOR:
                for _ in range(6):  # then PostgreSQL considers a plan for any state
                    await read_models.devices(pool, "north", crowd, status=status, limit=ROWS)
    assert {name: plans.paths.get(name) for name in PINNED} == PINNED
    assert {name: pages for name, pages in plans.pages.items() if pages > PAGES * ROWS} == {}
