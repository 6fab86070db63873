"""The cost of a statement does not depend on the campaign's size, nor on outdated statistics of a table.

A join planned for one row of twenty thousand would read the whole campaign for each row. So the test counts the pages
that a statement reads, and compares them with its rows. Each hot statement must also use the indexes that it was
written for, and no others.
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

from rollwave.domain.campaign import CampaignStatus, Change
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.reports.outcome import Move, tally_of
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.domain.retry import Reason
from rollwave.engine import overview
from rollwave.engine.upkeep.deadlines import MAX_OVERDUE_PER_LOOK
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, executions, many_tenants, overdue, views
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times
from rollwave.store.many_tenants import TenantReport
from rollwave.store.overdue import Failed, Postponed
from rollwave.store.queries import load
from tests.engine import campaign_shown, claim_commands

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

DEVICES, BATCH = 20_000, 1000
TIMES = Times(answer_timeout=60, progress_timeout=60, device_timeout=600)


async def insert(pool: Pool, tenant: str, devices: int, *, past: int = 0) -> CampaignId:
    """A running campaign, after this many completed ones of the same tenant."""
    await pool.execute("INSERT INTO tenants VALUES ($1)", tenant)
    firmware = await pool.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url) VALUES ($1, '1', 'https://f.invalid')"
        " RETURNING id",
        tenant,
    )
    await pool.execute(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, status)"
        " SELECT $1, 'past', $2, 'COMPLETED' FROM generate_series(1, $3)",
        *(tenant, firmware, past),
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


TABLES = EXECUTIONS, CAMPAIGNS = "ota_device_status", "ota_campaigns"
HISTORY = "ota_campaign_history"
LOOKED_INTO = (*TABLES, HISTORY)
NOUNS = ("campaigns", "counters", "executions", "many_tenants", "overdue", "overview", "views")
_PLAN = re.compile(r"plan:\n((?:\t.*\n)+)(?:.* CONTEXT:  (.*\n(?:\t.*\n)*))?")
_FUNCTION = re.compile(r"\brollwave_\w+(?=[\"(])")

PAGES = 40
"""Maximum number of pages that a statement may read per row: the row, old and new, and its index entries."""

ONCE_PER_ROW = {"overdue.postpone", "overdue.fail"}
"""Statements that are executed once for each row."""


@dataclass
class Plans:
    """How PostgreSQL executed each statement: the access paths, and the number of pages read.

    Statements inside a function count for the statement that calls it.
    """

    paths: dict[str, set[str]] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)

    def read(self, log: str) -> None:
        """Read the log of auto_explain."""
        names = {sql: f"{noun}.{name}" for noun in NOUNS for name, sql in load(noun).items()}
        names |= {function: name for sql, name in names.items() for function in _FUNCTION.findall(sql)}
        for plan, context in _PLAN.findall(log):
            explained, function = json.loads(plan), _FUNCTION.search(context)
            name, top = names.get(function[0] if function else explained["Query Text"].strip()), explained["Plan"]
            if name is not None:
                self.paths.setdefault(name, set()).update(_paths(top))
                pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
                self.pages[name] = max(pages, self.pages.get(name, 0))

    def over_budget(self, rows: int) -> dict[str, int]:
        """Statements that read more pages than their rows account for."""
        return {
            name: pages for name, pages in self.pages.items() if pages > PAGES * (1 if name in ONCE_PER_ROW else rows)
        }


def _paths(plan: dict[str, Any]) -> Iterator[str]:
    """The indexes by which executions, campaigns and events were found, or the kind of scan if no index was used."""
    if not plan["Actual Loops"]:
        return
    if plan.get("Index Name", "").startswith(LOOKED_INTO):
        yield plan["Index Name"]
    elif plan.get("Relation Name") in LOOKED_INTO and plan["Node Type"] not in (
        "ModifyTable",
        "Bitmap Heap Scan",
    ):
        yield plan["Node Type"]
    for each in plan.get("Plans", ()):
        yield from _paths(each)


@asynccontextmanager
async def explaining(database: str, log: Path) -> AsyncIterator[tuple[Pool, Plans]]:
    """A pool whose statements PostgreSQL logs with their plans."""
    plans, before = Plans(), log.stat().st_size

    async def explain(connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        await connection.execute(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;"
            " SET auto_explain.log_timing = off; SET auto_explain.log_buffers = on; SET auto_explain.log_format = json;"
            " SET auto_explain.log_nested_statements = on"
        )

    async with asyncpg.create_pool(database, min_size=0, max_size=1, setup=explain) as pool:
        yield pool, plans
    plans.read(log.read_bytes()[before:].decode())


@pytest.fixture(params=["never analyzed", "analyzed before the tenant came"])
async def campaign_id(request: pytest.FixtureRequest, pool: Pool) -> CampaignId:
    await pool.execute("ALTER TABLE ota_device_status SET (autovacuum_enabled = off)")
    if request.param != "never analyzed":
        await insert(pool, "south", DEVICES)
        await pool.execute("ANALYZE ota_device_status")
    return await insert(pool, "north", DEVICES)


async def test_statements_on_tables_without_statistics_read_few_rows(
    database: str, postgres_log: Path, campaign_id: CampaignId
) -> None:
    half = BATCH // 2
    async with explaining(database, postgres_log) as (pool, plans):
        async with tenant_transaction(pool, "north", queues=True) as connection:
            campaign = await campaigns.lock(connection, "north", campaign_id)
            claim = await claim_commands(connection, campaign, tokens=BATCH, fresh=BATCH)
        async with tenant_transaction(pool, "north", generic_plans=True) as connection:
            await executions.mark_sent(connection, "north", campaign_id, claim.commands[:half], TIMES)
            await executions.release(connection, "north", campaign_id, claim.commands[half:], delay=0.0, refusal=None)
        async with tenant_transaction(pool, "north", queues=True) as connection:
            again = await claim_commands(connection, campaign, tokens=BATCH, fresh=0)
        assert len(again.commands) == BATCH - half
        async with tenant_transaction(pool, "north", generic_plans=True) as connection:
            report = Report(campaign_id, ExecutionStatus.SUCCESS, 100)
            reports = [DeviceReport(each.device_id, report) for each in claim.commands]
            effects = await executions.apply_reports(connection, "north", reports, TIMES, max_attempts=3)
        assert sum(effect.applied for effect in effects) == BATCH
        async with tenant_transaction(pool, "north", queues=True) as connection:
            assert await executions.skip_unsent(connection, "north", campaign_id, limit=BATCH, reason="test") == BATCH
    assert plans.over_budget(BATCH) == {}


async def test_overdue_devices_are_found_by_an_index(
    database: str, postgres_log: Path, pool: Pool, campaign_id: CampaignId
) -> None:
    await pool.execute(
        "UPDATE ota_device_status"
        " SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, started_at = now(), due_at = now()"
    )
    half = MAX_OVERDUE_PER_LOOK // 2
    async with (
        explaining(database, postgres_log) as (explained, plans),
        tenant_transaction(explained, "north", queues=True) as connection,
    ):
        campaign = await campaigns.lock(connection, "north", campaign_id)
        late = await overdue.lock_overdue(
            connection, campaign, everyone=False, device_timeout=600, limit=MAX_OVERDUE_PER_LOOK
        )
        silent = [each.device_id for each in late]
        again = [Postponed(each, Reason.NO_ANSWER, 1.0) for each in silent[:half]]
        await overdue.postpone(connection, campaign, again, device_timeout=600)
        await overdue.fail(connection, campaign, [Failed(each, Reason.NO_ANSWER, "silent") for each in silent[half:]])
    counted = await pool.fetchrow(
        "SELECT count(*) FILTER (WHERE status = 'FAILED'), count(*) FILTER (WHERE failed_attempt = 1)"
        " FROM ota_device_status"
    )
    assert counted is not None
    assert tuple(counted) == (MAX_OVERDUE_PER_LOOK - half, MAX_OVERDUE_PER_LOOK)
    assert plans.over_budget(MAX_OVERDUE_PER_LOOK) == {}


WAITING, OPEN, LOOKED_FOR, KEY = (f"{EXECUTIONS}_{name}" for name in ("waiting", "open", "looked_for", "pkey"))
DUE, CAMPAIGN = (f"{CAMPAIGNS}_{name}" for name in ("due", "pkey"))
PINNED = {
    "campaigns.due": {DUE},
    "campaigns.lock": {CAMPAIGN},
    "campaigns.get": {CAMPAIGN},
    "counters.count": {CAMPAIGN},
    "campaigns.suspend": {CAMPAIGN},
    "campaigns.activate": {CAMPAIGN},
    "campaigns.note": {CAMPAIGN},
    "executions.claim": {WAITING, OPEN, "Tid Scan", CAMPAIGN},
    "executions.mark_sent": {KEY, CAMPAIGN},
    "executions.release": {KEY},
    "executions.apply_reports": {KEY, CAMPAIGN},
    "counters.adopt": {OPEN, "Tid Scan", CAMPAIGN},
    "counters.any_left_behind": {OPEN},
    "overdue.bring_forward": {OPEN, "Tid Scan"},
    "overdue.lock_overdue": {OPEN},
    "overdue.postpone": {KEY},
    "overdue.fail": {KEY},
    "executions.skip_unsent": {WAITING, OPEN, "Tid Scan", CAMPAIGN},
    "counters.outlook": {WAITING, OPEN, KEY},
    "counters.next_due": {OPEN},
    "counters.in_flight": {OPEN},
    "executions.current": {KEY, DUE},
    "many_tenants.apply_reports": {KEY, CAMPAIGN},
    "many_tenants.count": {CAMPAIGN},
    "views.devices": {KEY},
    "views.devices_looked_for": {LOOKED_FOR},
    "views.devices_unfinished": {WAITING, OPEN},
    "views.campaign": {CAMPAIGN},
    "views.campaigns": {CAMPAIGN, DUE, f"{HISTORY}_of_campaign"},
    "views.latest_events": {f"{HISTORY}_pkey"},
    "overview.campaigns": {CAMPAIGN},
    "views.claimed_and_pending": {OPEN},
    "views.device": {KEY, WAITING, OPEN},
}

LARGE_CAMPAIGN, ROWS, EARLIER_CAMPAIGNS = 6000, 100, 3000


@pytest.fixture(
    params=["never analyzed", "analyzed before the tenant came", "analyzed while full", "analyzed when empty"]
)
async def large_campaign(request: pytest.FixtureRequest, pool: Pool) -> CampaignId:
    """A campaign of which a fifth waits, larger than PostgreSQL's statistics say, beside many other campaigns.

    PostgreSQL has statistics of campaigns, of which a few are created each day. Most are over: otherwise a full scan
    would be the right plan.
    """
    believed = request.param
    for table in TABLES:
        await pool.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await insert(pool, "south", LARGE_CAMPAIGN, past=EARLIER_CAMPAIGNS)
    if believed == "analyzed before the tenant came":
        await pool.execute("ANALYZE")
    campaign_id = await insert(pool, "north", LARGE_CAMPAIGN, past=EARLIER_CAMPAIGNS)
    await pool.execute("ANALYZE ota_campaigns")
    await keep_events(pool, campaign_id)
    await pool.execute(
        "UPDATE ota_campaigns SET pending = CASE status WHEN 'RUNNING' THEN $1 / 5 ELSE 0 END,"
        " downloading = 0, installing = 0, skipped = 0, total_devices = $1",
        LARGE_CAMPAIGN,
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


async def keep_events(pool: Pool, campaign_id: CampaignId) -> None:
    """Events of the campaign, the statistics of that time, and then many more of another campaign of the tenant."""
    another = await pool.fetchval("SELECT min(id) FROM ota_campaigns WHERE tenant_id = 'north'")
    insert = (
        f"INSERT INTO {HISTORY} (tenant_id, campaign_id, device_id, event, actor)"
        " SELECT 'north', $1, 'device-' || n, 'device_retried', 'test' FROM generate_series(1, $2) AS n"
    )
    await pool.execute(f"ALTER TABLE {HISTORY} SET (autovacuum_enabled = off)")
    await pool.execute(insert, campaign_id, ROWS)
    await pool.execute(f"ANALYZE {HISTORY}")
    await pool.execute(insert, another, DEVICES)


async def claimed(pool: Pool, large_campaign: CampaignId) -> tuple[Campaign, tuple[Claimed, ...]]:
    async with tenant_transaction(pool, "north", queues=True) as connection:
        campaign = await campaigns.lock(connection, "north", large_campaign)
        claim = await claim_commands(connection, campaign, tokens=ROWS, fresh=ROWS)
    assert len(claim.commands) == ROWS
    return campaign, claim.commands


async def sent_and_reported(pool: Pool, large_campaign: CampaignId, commands: tuple[Claimed, ...]) -> None:
    """Half of the devices are sent to.

    A fifth reports in a transaction of its tenant, a fifth in one of many tenants.
    """
    half, fifth, report = ROWS // 2, ROWS // 5, Report(large_campaign, ExecutionStatus.SUCCESS, 100)
    alone, shared = commands[:fifth], commands[fifth : 2 * fifth]
    async with tenant_transaction(pool, "north", generic_plans=True) as connection:
        await executions.mark_sent(connection, "north", large_campaign, commands[:half], TIMES)
        await executions.release(connection, "north", large_campaign, commands[half:], delay=60, refusal=None)
        reports = [DeviceReport(each.device_id, report) for each in alone]
        effects = await executions.apply_reports(connection, "north", reports, TIMES, max_attempts=3)
        await counters.count(
            connection, "north", tally_of(Move(large_campaign, each.was, each.became) for each in effects)
        )
    async with many_tenants.transaction(pool) as connection:
        north = TenantId("north")
        of_many = [TenantReport(north, each.device_id, report) for each in shared]
        effects = await many_tenants.apply_reports(connection, of_many, TIMES)
        await many_tenants.count(
            connection, {north: tally_of(Move(large_campaign, each.was, each.became) for each in effects)}
        )
    assert all(each.applied for each in effects)


async def looked_after(pool: Pool, campaign: Campaign, commands: tuple[Claimed, ...]) -> None:
    """One device never had a deadline, another one has its deadline in a day."""
    half = ROWS // 2
    for device, due_at in zip(commands[half - 2 : half], ("NULL", "now() + interval '1 day'"), strict=True):
        await pool.execute(
            f"UPDATE ota_device_status SET due_at = {due_at} WHERE device_id = $1 AND tenant_id = 'north'",
            device.device_id,
        )
    silent = commands[half - 3].device_id
    async with tenant_transaction(pool, "north", queues=True) as connection:
        await counters.outlook(connection, campaign)
        await counters.next_due(connection, campaign)
        await counters.in_flight(connection, campaign, up_to=ROWS)
        await counters.any_left_behind(connection, campaign)
        await counters.adopt(connection, campaign, progress_timeout=60, limit=ROWS, skipped=["no"])
        for change in (Change.SUSPEND, Change.ACTIVATE, Change.NOTE):
            await campaigns.note_activity(connection, campaign, change, longest=60)
        await overdue.bring_forward(connection, campaign, longest=600, progress_timeout=60)
        await overdue.lock_overdue(connection, campaign, everyone=False, device_timeout=600, limit=ROWS)
        await overdue.postpone(connection, campaign, [Postponed(silent, Reason.NO_ANSWER, 1.0)], device_timeout=600)
        await overdue.fail(connection, campaign, [Failed(silent, Reason.NO_ANSWER, "silent")])
    async with tenant_transaction(pool, "north") as connection:
        assert await executions.current(connection, "north", [each.device_id for each in commands])
    async with tenant_transaction(pool, "north", generic_plans=True) as connection:
        await executions.skip_unsent(connection, "north", campaign.id, limit=ROWS, reason="test")


async def looked_at(pool: Pool, large_campaign: CampaignId) -> None:
    await campaigns.due(pool)
    await campaign_shown(pool, "north", large_campaign)
    await views.devices(pool, "north", large_campaign, status=None, limit=ROWS, cursor="device-2")
    async with tenant_transaction(pool, "north", queues=True) as connection:
        await views.pending(connection, "north", large_campaign, device_timeout=600, tokens=ROWS)
        await views.device(connection, "north", large_campaign, f"device-{LARGE_CAMPAIGN}", device_timeout=600)
    for _ in range(6):  # Then PostgreSQL considers a generic plan for any status.
        for status in views.LOOKED_FOR:
            await views.devices(pool, "north", large_campaign, status=status, limit=ROWS)
        await views.devices(pool, "north", large_campaign, status=ExecutionStatus.DOWNLOADING, limit=ROWS)
        for state in (None, CampaignStatus.RUNNING, CampaignStatus.COMPLETED):
            await overview.campaigns(pool, Settings(), "north", status=state, limit=ROWS)
    await overview.overview(pool, Settings(), "north", large_campaign)


async def test_each_frequent_statement_uses_its_own_index(
    database: str, postgres_log: Path, large_campaign: CampaignId
) -> None:
    async with explaining(database, postgres_log) as (pool, plans):
        for _ in range(2):
            campaign, commands = await claimed(pool, large_campaign)
            await sent_and_reported(pool, large_campaign, commands)
            await looked_after(pool, campaign, commands)
            await looked_at(pool, large_campaign)
    assert {name: plans.paths.get(name) for name in PINNED} == PINNED
    assert plans.over_budget(ROWS) == {}
