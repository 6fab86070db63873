"""Reports of many tenants in one transaction: the same rules and isolation apply, and no tenant delays another."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product

import pytest

from rollwave.domain.execution import ExecutionStatus as S
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store import counters, executions, many_tenants
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from rollwave.store.many_tenants import TenantReport
from tests.engine import Connection, breakdown, campaign_row, connect, incoming_report, insert_campaign, mark_sent
from tests.integration.test_row_level_security import insert_tenants_with_equal_ids
from tests.support import eventually

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

ALONE, *OTHERS = (TenantId(each) for each in ("north", "south", "demo"))
TENANTS = [ALONE, *OTHERS]
TIMES = Times(1800, 1800, 86_400)

# (attempt, failed_attempt, failed_reason), and the seconds until the deadline.
PASTS = [
    (0, 0, None),
    (1, 0, None),
    (2, 1, "no_progress"),
    (2, 2, "no_progress"),
    (2, 2, "reported"),
    (1, 1, "rejected"),
]
DUE = [60, 7200, None]
REPORTS = [
    Report(CampaignId(0), status, progress, error, attempt)
    for status, progress, error, attempt in product(
        (S.DOWNLOADING, S.INSTALLING, S.SUCCESS), (None, 30, 80), (None, "slow"), (None, 1, 2)
    )
]


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def campaign_of(host: Connection, tenant: str, count: int = 4, **columns: object) -> int:
    """A campaign whose devices have all been sent to."""
    campaign = await insert_campaign(host, count, tenant=tenant, **columns)
    await mark_sent(host, campaign, [f"dev-{number}" for number in range(1, count + 1)])
    return campaign


async def transactions(host: Connection) -> int:
    """The number of transactions that wrote the executions that have ended."""
    number: int = await host.fetchval(
        "SELECT count(DISTINCT xmin::text) FROM ota_device_status WHERE status = 'SUCCESS'"
    )
    return number


async def test_many_tenants_at_once_have_the_results_of_single_tenant_transactions(
    pool: Pool, host: Connection
) -> None:
    states = list(product(["CANCELLED", *S], PASTS, DUE, [0, 50]))
    cases = [(f"dev-{n}-{m}", state, report) for n, state in enumerate(states) for m, report in enumerate(REPORTS)]
    cases = cases[::7]  # Every status meets every kind of report, not every single report.
    await host.execute("ALTER TABLE ota_device_status DROP CONSTRAINT ota_device_status_status_check")
    said_by: dict[TenantId, list[DeviceReport]] = {}
    for tenant in TENANTS:
        ids = [
            await insert_campaign(host, 0, tenant=tenant, progress_timeout=p, device_timeout=d)
            for p, d in [(None, None), (600.0, 1e12), (-1.0, 3000.0)]
        ]
        campaign_of_case = [ids[number % 3] for number in range(len(cases))]
        await host.executemany(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
            " failed_attempt, failed_reason, due_at, progress_pct, error_message, started_at)"
            " VALUES ($1, $2, $3, $4, $5, $5, $6, $7, now() + make_interval(secs => $8), $9, 'before', now())",
            [
                (tenant, campaign, name, str(status), *past, due, progress)
                for campaign, (name, (status, past, due, progress), _) in zip(campaign_of_case, cases, strict=True)
            ],
        )
        said_by[tenant] = [
            DeviceReport(DeviceId(name), replace(report, campaign_id=CampaignId(campaign)))
            for campaign, (name, _, report) in zip(campaign_of_case, cases, strict=True)
        ] + [
            DeviceReport(DeviceId("nobody"), Report(CampaignId(ids[0]), S.SUCCESS)),
            DeviceReport(DeviceId("dev-1-1"), Report(CampaignId(1 << 40), S.SUCCESS)),
        ]
    async with tenant_transaction(pool, ALONE, generic_plans=True) as connection:
        alone = await executions.apply_reports(connection, ALONE, said_by[ALONE], TIMES, max_attempts=3)
    async with many_tenants.transaction(pool) as connection:
        effects = await many_tenants.apply_reports(
            connection, [TenantReport(tenant, *each) for tenant in OTHERS for each in said_by[tenant]], TIMES
        )
    # Devices of flat columns have no place.
    expected = [each._replace(reason=None, segment=None, position=None) for each in alone]
    for number, tenant in enumerate(OTHERS):
        theirs = effects[number * len(alone) : (number + 1) * len(alone)]
        assert [each for each in zip(said_by[tenant], theirs, expected, strict=True) if each[1] != each[2]] == []
        assert await _rows(host, tenant) == await _rows(host, ALONE)
    applied = Counter(each.applied for each in alone)
    assert min(applied[True], applied[False]) > 100


async def _rows(host: Connection, tenant: str) -> list[tuple[object, ...]]:
    """Every execution of a tenant. Times are in steps of five minutes from its start."""
    rows = await host.fetch(
        "SELECT device_id, status, progress_pct, error_message, attempt, sent_attempt, heard_attempt, failed_attempt,"
        " failed_reason, completed_at IS NULL, round(EXTRACT(epoch FROM due_at - started_at) / 300)"
        " FROM ota_device_status WHERE tenant_id = $1 ORDER BY device_id",
        tenant,
    )
    return [tuple(row) for row in rows]


async def test_many_tenants_at_once_move_counters_as_a_single_tenants_transaction_does(
    pool: Pool, host: Connection
) -> None:
    counted = {"pending": 5, "downloading": 5, "installing": 5, "skipped": 5}
    ids = {
        tenant: [await insert_campaign(host, 0, tenant=tenant, **each) for each in (counted, {})] for tenant in TENANTS
    }
    tallies = {
        tenant: Counter({(CampaignId(campaign), status): n - 2 for campaign in each for n, status in enumerate(S)})
        for tenant, each in ids.items()
    }
    async with tenant_transaction(pool, ALONE) as connection:
        alone = await counters.count(connection, ALONE, tallies.pop(ALONE))
    async with many_tenants.transaction(pool) as connection:
        moved = await many_tenants.count(connection, tallies)
    assert [tenant for tenant, _ in moved] == sorted(OTHERS * 2)
    for (tenant, other), mine in zip(moved, alone * 2, strict=True):
        assert other.campaign_id in ids[tenant]
        assert (other.succeeded, other.failed, other.sent) == (mine.succeeded, mine.failed, mine.sent)
    sums = await host.fetch(
        "SELECT DISTINCT pending, downloading, installing, succeeded, failed, skipped FROM ota_campaigns"
    )
    assert len(sums) == 2, "counted campaigns and uncounted ones"


@pytest.mark.parametrize(("tenants_per_transaction", "expected"), [(100, 1), (20, 2)])
async def test_a_batch_of_many_tenants_takes_one_or_two_transactions(
    pool: Pool, host: Connection, tenants_per_transaction: int, expected: int
) -> None:
    tenants = [f"tenant-{number}" for number in range(40)]
    ids = {tenant: await campaign_of(host, tenant) for tenant in tenants}
    batch = [
        incoming_report(f"dev-{n}", ids[tenant], "SUCCESS", tenant=tenant) for n in (1, 2, 3) for tenant in tenants
    ]
    batch += [incoming_report("dev-4", ids["tenant-7"], word, tenant="tenant-7") for word in ("DOWNLOADING", "SUCCESS")]
    await Ingest(pool, Settings(), tenants_per_transaction=tenants_per_transaction).take_in(batch)
    assert await transactions(host) == expected
    assert [await campaign_row(host, ids[each], each) for each in tenants] == [
        ("RUNNING", 4 if each == "tenant-7" else 3, 0) for each in tenants
    ]


async def test_a_failure_among_many_tenants_is_counted_and_recorded(pool: Pool, host: Connection) -> None:
    ids = {tenant: await campaign_of(host, tenant, 3, abort_threshold=0.9) for tenant in TENANTS}
    batch = [incoming_report("dev-1", ids[tenant], "SUCCESS", tenant=tenant) for tenant in TENANTS]
    await Ingest(pool, Settings()).take_in([*batch, incoming_report("dev-2", ids[ALONE], "FAILED", tenant=ALONE)])
    assert await campaign_row(host, ids[ALONE], ALONE) == ("RUNNING", 1, 1)
    history = await host.fetch("SELECT tenant_id, device_id FROM ota_campaign_history WHERE device_id IS NOT NULL")
    assert [tuple(each) for each in history] == [(ALONE, "dev-2")]


async def test_a_success_that_completes_the_sample_aborts_only_its_own_campaign(pool: Pool, host: Connection) -> None:
    ids = {tenant: await insert_campaign(host, 6, tenant=tenant, abort_min_completed=3) for tenant in TENANTS}
    for tenant in TENANTS:
        await mark_sent(host, ids[tenant], ["dev-1", "dev-2", "dev-3"])
    await host.execute(
        "UPDATE ota_device_status SET status = 'FAILED' WHERE campaign_id = $1 AND device_id = 'dev-2'", ids[ALONE]
    )
    await host.execute("UPDATE ota_campaigns SET failed = 1 WHERE id = $1", ids[ALONE])
    batch = [
        incoming_report(device, ids[tenant], "SUCCESS", tenant=tenant)
        for tenant in TENANTS
        for device in ("dev-1", "dev-3")
    ]
    await Ingest(pool, Settings()).take_in(batch)
    assert await transactions(host) == 1
    assert await campaign_row(host, ids[ALONE], ALONE) == ("ABORTED", 2, 1)
    assert await breakdown(host, ids[ALONE], ALONE) == {"SUCCESS": 2, "FAILED": 1, "SKIPPED": 3}
    for tenant in OTHERS:
        assert await campaign_row(host, ids[tenant], tenant) == ("RUNNING", 2, 0)
        assert await breakdown(host, ids[tenant], tenant) == {"SUCCESS": 2, "DOWNLOADING": 1, "PENDING": 3}


@pytest.mark.parametrize("tenants_per_transaction", [100, 1], ids=["one transaction", "two transactions"])
async def test_a_value_that_postgresql_refuses_drops_no_report_of_other_tenants(
    pool: Pool, host: Connection, tenants_per_transaction: int
) -> None:
    ids = {tenant: await campaign_of(host, tenant) for tenant in TENANTS}
    await host.execute("""
        CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.tenant_id = 'south' AND NEW.device_id = 'dev-2' THEN RAISE 'no'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER picky BEFORE UPDATE ON ota_device_status FOR EACH ROW EXECUTE FUNCTION picky();
    """)
    batch = [
        incoming_report(f"dev-{n}", ids[tenant], "SUCCESS", tenant=tenant) for n in (1, 2, 3) for tenant in TENANTS
    ]
    await asyncio.wait_for(Ingest(pool, Settings(), tenants_per_transaction=tenants_per_transaction).take_in(batch), 20)
    assert {tenant: (await campaign_row(host, ids[tenant], tenant))[1] for tenant in TENANTS} == {
        "north": 3,
        "south": 2,
        "demo": 3,
    }


async def test_a_locked_row_delays_only_its_own_tenant(database: str, pool: Pool, host: Connection) -> None:
    ids = {tenant: await campaign_of(host, tenant) for tenant in TENANTS}
    batch = [incoming_report("dev-1", ids[tenant], "SUCCESS", tenant=tenant) for tenant in TENANTS]

    async def others_are_written() -> bool:
        return [(await campaign_row(host, ids[tenant], tenant))[1] for tenant in TENANTS] == [0, 1, 1]

    async with connect(database) as holder:
        async with holder.transaction():
            await holder.execute("SELECT FROM ota_device_status WHERE tenant_id = $1 FOR UPDATE", ALONE)
            taking = asyncio.create_task(Ingest(pool, Settings()).take_in(batch))
            await eventually(others_are_written, timeout=many_tenants.LOCK_WAIT_SECONDS + 10)
        await asyncio.wait_for(taking, 20)
    assert (await campaign_row(host, ids[ALONE], ALONE))[1] == 1


async def test_rows_not_found_in_the_shared_transaction_are_looked_up_again(pool: Pool, host: Connection) -> None:
    """As on Citus, which does not pass on settings made with ``set_config``."""
    ids = {tenant: await campaign_of(host, tenant) for tenant in TENANTS}
    written = await host.fetchval("SELECT pg_get_functiondef('rollwave_apply_reports'::regproc)")
    await host.execute(written.replace("set_config('app.tenant_id', r.tenant, true)", "1"))
    await Ingest(pool, Settings()).take_in(
        [incoming_report("dev-1", ids[tenant], "SUCCESS", tenant=tenant) for tenant in TENANTS]
    )
    assert [await campaign_row(host, ids[tenant], tenant) for tenant in TENANTS] == [("RUNNING", 1, 0)] * 3


@pytest.mark.parametrize("stripped", [False, True])
async def test_row_level_security_alone_separates_the_tenants_of_one_transaction(
    pool: Pool, host: Connection, stripped: bool
) -> None:
    await insert_tenants_with_equal_ids(host)
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1")
    if stripped:
        for function in ("rollwave_apply_reports", "rollwave_count"):
            written = await host.fetchval("SELECT pg_get_functiondef($1::regproc)", function)
            without = re.sub(r"\w\.tenant_id = \w\.tenant AND ", "", written)
            assert "tenant_id =" not in without
            assert without != written
            await host.execute(without)
    one = Report(CampaignId(7), S.SUCCESS)
    async with many_tenants.transaction(pool) as connection:
        effects = await many_tenants.apply_reports(
            connection, [TenantReport(TenantId("north"), DeviceId("dev-1"), one)], TIMES
        )
        tally = Counter({(CampaignId(7), S.SUCCESS): 1})
        moved = await many_tenants.count(connection, {TenantId("north"): tally})
        assert await connection.fetchval("SELECT current_setting('app.tenant_id')") == ""
        assert await connection.fetchval("SELECT count(*) FROM ota_campaigns") == 0, "the tenant of nobody"
    assert [each.became for each in effects] == [S.SUCCESS]
    assert [(tenant, each.succeeded) for tenant, each in moved] == [("north", 1)]
    ended = await host.fetch("SELECT tenant_id, device_id FROM ota_device_status WHERE status = 'SUCCESS'")
    assert [tuple(each) for each in ended] == [("north", "dev-1")]
    counted = await host.fetch("SELECT tenant_id, succeeded FROM ota_campaigns ORDER BY 1")
    assert [tuple(each) for each in counted] == [("north", 1), ("south", 0)]
