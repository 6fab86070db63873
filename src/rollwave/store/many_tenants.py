"""Reports of many tenants in one transaction: two statements, however many tenants they are.

Both are functions of the schema, which name one tenant after the other (migration 0007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.outcome import Tally
from rollwave.domain.reports.parse import Report
from rollwave.store import campaigns, executions
from rollwave.store.campaigns import CampaignCounters
from rollwave.store.database import Connection, Pool, system_transaction
from rollwave.store.executions import Effect, Times
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("many_tenants")

LOCK_WAIT_SECONDS = 0.5
"""Seconds for which one tenant's rows, locked by somebody else, may hold up the other tenants."""


def transaction(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """One that names no tenant, and waits for nobody's lock for long."""
    return system_transaction(pool, lock_timeout=LOCK_WAIT_SECONDS, generic_plans=True)


class TenantReport(NamedTuple):
    """A report, and the device that it is of, by its tenant."""

    tenant_id: TenantId
    device_id: DeviceId
    report: Report


async def apply_reports(connection: Connection, said: Sequence[TenantReport], times: Times) -> list[Effect]:
    """Take in at most one report an execution, none of them a failure; what each met and did, in the same order.

    Raises:
        ValueRefused: PostgreSQL does not take a value of one of the reports.
    """
    columns = (
        [tenant_id for tenant_id, _, _ in said],
        [report.campaign_id for _, _, report in said],
        [device_id for _, device_id, _ in said],
        [report.status for _, _, report in said],
        [report.progress for _, _, report in said],
        [report.error for _, _, report in said],
        [report.attempt for _, _, report in said],
    )
    with refusing_values():
        rows = await connection.fetch(_sql["apply_reports"], *columns, times.progress_timeout, times.device_timeout)
    status = executions.STATUS.get
    return [
        Effect(status(row["was"]), status(row["became"]), row["attempt"], None, False, row["progress_timeout"])
        for row in rows
    ]


class Counted(NamedTuple):
    """A campaign whose counters moved, and where it stands since."""

    tenant_id: TenantId
    counters: CampaignCounters


async def count(connection: Connection, tallies: Mapping[TenantId, Tally]) -> list[Counted]:
    """Move counters with the rows that this transaction moved; tells where each of those campaigns now stands."""
    moved = sorted(
        {
            (tenant_id, campaign_id)
            for tenant_id, tally in tallies.items()
            for (campaign_id, _), by in tally.items()
            if by
        }
    )
    by_status = [
        [tallies[tenant_id].get((campaign_id, status), 0) for tenant_id, campaign_id in moved]
        for status in ExecutionStatus
    ]
    rows = await connection.fetch(_sql["count"], [each for each, _ in moved], [each for _, each in moved], *by_status)
    return [Counted(row["tenant"], campaigns.campaign_counters(row)) for row in rows]
