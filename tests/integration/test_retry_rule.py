"""SQL decides about retries and deadlines under the row's lock. It agrees with ``domain`` in every combination."""

from __future__ import annotations

from itertools import product

import pytest

from rollwave.domain.execution import ExecutionStatus as S
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.domain.reports.throttle import LEEWAY
from rollwave.domain.retry import Reason, RetryPolicy, reported_failure
from rollwave.store import executions, many_tenants
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from tests.engine import connect, insert_campaign

NORTH, SOUTH = TenantId("north"), TenantId("south")
TIMES = Times(1800, 1800, 86_400)
DEFAULT_ATTEMPTS = 3

RETRY_ON: list[list[str] | None] = [None, [], ["reported"], ["rejected"], ["reported", "rejected"], ["no_answer"]]
MAX_ATTEMPTS = [None, 1, 2, 3, 100]
RETRIES_CONTINUE = {"RUNNING": True, "PAUSED": True, "ABORTED": False, "COMPLETED": False}
DEVICES = list(product([1, 2, 3, 99, 100], [True, False]))
"""The attempt, and whether the device has already reported in it."""


async def test_a_reported_failure_is_retried_exactly_where_the_retry_policy_allows_another_attempt(
    database: str, pool: Pool
) -> None:
    expected: list[tuple[Reason, bool]] = []
    reports: list[tuple[DeviceId, Report]] = []
    async with connect(database) as host:
        for retry_on, most, status in product(RETRY_ON, MAX_ATTEMPTS, RETRIES_CONTINUE):
            campaign = await insert_campaign(host, 0, tenant=NORTH, status=status, retry_on=retry_on, max_attempts=most)
            policy = RetryPolicy.read(retry_on, most or DEFAULT_ATTEMPTS, 60, 3600)
            for attempt, heard in DEVICES:
                device = DeviceId(f"dev-{attempt}-{heard}")
                await host.execute(
                    "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
                    " heard_attempt, due_at, started_at)"
                    " VALUES ($1, $2, $3, 'DOWNLOADING', $4, $4, $5, now() + interval '1 hour', now())",
                    *(NORTH, campaign, device, attempt, attempt if heard else attempt - 1),
                )
                reports.append((device, Report(CampaignId(campaign), S.FAILED)))
                reason = reported_failure(heard=heard)
                expected.append((reason, RETRIES_CONTINUE[status] and policy.allows_another(reason, attempt)))
    async with tenant_transaction(pool, NORTH, generic_plans=True) as connection:
        effects = await executions.apply_reports(connection, NORTH, reports, TIMES, max_attempts=DEFAULT_ATTEMPTS)
    found = [(each.reason, each.retried) for each in effects]
    assert [each for each in zip(reports, found, expected, strict=True) if each[1] != each[2]] == []
    assert [each.became is S.FAILED for each in effects] == [not retried for _, retried in expected]
    assert len({retried for _, retried in expected}) == 2


@pytest.mark.parametrize("progress_timeout", [60.0, 1800.0, None])
async def test_both_ways_to_apply_a_report_set_the_deadline_later_by_the_leeway(
    database: str, pool: Pool, progress_timeout: float | None
) -> None:
    report = {}
    async with connect(database) as host:
        for tenant in (NORTH, SOUTH):
            campaign = await insert_campaign(host, 0, tenant=tenant, progress_timeout=progress_timeout)
            report[tenant] = Report(CampaignId(campaign), S.INSTALLING)
            await host.execute(
                "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
                " started_at, due_at) VALUES ($1, $2, 'dev-1', 'DOWNLOADING', 1, 1, now(), now())",
                *(tenant, campaign),
            )
    device = DeviceId("dev-1")
    async with tenant_transaction(pool, NORTH) as connection:
        await executions.apply_reports(connection, NORTH, [(device, report[NORTH])], TIMES, max_attempts=3)
        alone = await connection.fetchval(_SECONDS_LEFT)
    async with many_tenants.transaction(pool) as connection:
        await many_tenants.apply_reports(connection, [(SOUTH, device, report[SOUTH])], TIMES)
    async with tenant_transaction(pool, SOUTH) as connection:
        together = await connection.fetchval(_SECONDS_LEFT)
    expected = (progress_timeout or TIMES.progress_timeout) * (1 + LEEWAY)
    assert alone == pytest.approx(expected, abs=1.5)
    assert together == pytest.approx(expected, abs=1.5)


_SECONDS_LEFT = "SELECT EXTRACT(epoch FROM due_at - now())::float8 FROM ota_device_status WHERE device_id = 'dev-1'"
