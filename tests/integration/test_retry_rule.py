"""SQL decides about retries and deadlines under the row's lock. It agrees with ``domain`` in every combination."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollwave.domain.execution import LEEWAY
from rollwave.domain.execution import ExecutionStatus as S
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.domain.retry import DeviceTime, Reason, RetryPolicy, reported_failure
from rollwave.store import campaigns, executions, many_tenants, overdue
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from rollwave.store.many_tenants import TenantReport
from rollwave.store.overdue import Postponed
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
    reports: list[DeviceReport] = []
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
                reports.append(DeviceReport(device, Report(CampaignId(campaign), S.FAILED)))
                reason = reported_failure(heard=heard)
                expected.append((reason, RETRIES_CONTINUE[status] and policy.allows_another(reason, attempt)))
    async with tenant_transaction(pool, NORTH, generic_plans=True) as connection:
        effects = await executions.apply_reports(connection, NORTH, reports, TIMES, max_attempts=DEFAULT_ATTEMPTS)
    found = [(each.reason, each.retried) for each in effects]
    assert [each for each in zip(reports, found, expected, strict=True) if each[1] != each[2]] == []
    assert [each.became is S.FAILED for each in effects] == [not retried for _, retried in expected]
    assert len({retried for _, retried in expected}) == 2


@pytest.mark.parametrize("progress_timeout", [60.0, 1800.0, None])
async def test_both_statements_that_apply_a_report_extend_the_deadline_by_the_same_leeway(
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
        await executions.apply_reports(connection, NORTH, [DeviceReport(device, report[NORTH])], TIMES, max_attempts=3)
        alone = await connection.fetchval(_SECONDS_LEFT)
    async with many_tenants.transaction(pool) as connection:
        await many_tenants.apply_reports(connection, [TenantReport(SOUTH, device, report[SOUTH])], TIMES)
    async with tenant_transaction(pool, SOUTH) as connection:
        with_others = await connection.fetchval(_SECONDS_LEFT)
    expected = (progress_timeout or TIMES.progress_timeout) * (1 + LEEWAY)
    assert alone == pytest.approx(expected, abs=1.5)
    assert with_others == pytest.approx(expected, abs=1.5)


_SECONDS_LEFT = "SELECT EXTRACT(epoch FROM due_at - now())::float8 FROM ota_device_status WHERE device_id = 'dev-1'"


@dataclass(frozen=True)
class FailedAttempt:
    """A device whose attempt has failed, in seconds."""

    started_ago: float | None
    suspended_before: float
    delay: float

    def time(self, device_timeout: float, suspended_for: float) -> DeviceTime:
        return DeviceTime(device_timeout, self.started_ago, suspended_for, self.suspended_before)


SECONDS = st.integers(0, 100).map(lambda tens: tens * 10.0)
"""Multiples of ten: a statement's own time, which is less than five seconds, changes no comparison."""

FAILED_ATTEMPTS = st.lists(
    st.builds(FailedAttempt, st.none() | SECONDS.map(lambda seconds: seconds + 5), SECONDS, SECONDS),
    min_size=1,
    max_size=100,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(failed=FAILED_ATTEMPTS, device_timeout=SECONDS, suspended_for=SECONDS)
async def test_another_attempt_follows_exactly_if_its_delay_ends_before_the_device_timeout(
    database: str, pool: Pool, failed: list[FailedAttempt], device_timeout: float, suspended_for: float
) -> None:
    devices = {DeviceId(f"dev-{number}"): each for number, each in enumerate(failed)}
    times = {name: each.time(device_timeout, suspended_for) for name, each in devices.items()}
    async with connect(database) as host:
        number = await insert_campaign(host, 0, tenant=NORTH, suspended_for=suspended_for)
        await host.executemany(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt,"
            " heard_attempt, due_at, started_at, suspended_before) VALUES ($1, $2, $3, 'DOWNLOADING', 1, 1, 1, now(),"
            " now() - make_interval(secs => $4), $5)",
            [(NORTH, number, name, each.started_ago, each.suspended_before) for name, each in devices.items()],
        )
    async with tenant_transaction(pool, NORTH) as connection:
        campaign = await campaigns.lock(connection, NORTH, number)
        silent = await overdue.lock_overdue(
            connection, campaign, everyone=False, device_timeout=device_timeout, limit=1000
        )
        started = [each for each in silent if devices[each.device_id].started_ago is not None]
        assert {each.device_id: each.out_of_time for each in started} == {
            name: times[name].is_over for name, each in devices.items() if each.started_ago is not None
        }
        ended = [Postponed(name, Reason.NO_PROGRESS, each.delay) for name, each in devices.items()]
        await overdue.postpone(connection, campaign, ended, device_timeout=device_timeout)
        due = {row["device_id"]: row["due_in"] for row in await connection.fetch(_LET_TIME_PASS, number)}
        given_up = await overdue.lock_overdue(
            connection, campaign, everyone=False, device_timeout=device_timeout, limit=1000
        )
        claim = await executions.claim(
            connection,
            campaign,
            tokens=1000,
            fresh=0,
            lease=60,
            device_timeout=device_timeout,
            opens_interval=False,
            command="{}",
        )
    assert due == pytest.approx({name: times[name].due_in(each.delay) for name, each in devices.items()}, abs=4.9)
    goes_on = {name for name, each in devices.items() if times[name].allows_attempt_after(each.delay)}
    assert {each.device_id for each in claim.commands} == goes_on
    assert {each.device_id for each in given_up} == devices.keys() - goes_on
    assert all(each.out_of_time for each in given_up)


_LET_TIME_PASS = """
UPDATE ota_device_status d
SET due_at = statement_timestamp(), started_at = d.started_at - (d.due_at - statement_timestamp())
FROM (SELECT device_id, EXTRACT(epoch FROM due_at - statement_timestamp())::float8 AS due_in
      FROM ota_device_status WHERE campaign_id = $1) AS before
WHERE d.campaign_id = $1 AND d.device_id = before.device_id
RETURNING d.device_id, before.due_in
"""
"""As if the time until each device is due had passed."""
