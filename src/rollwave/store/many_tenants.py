"""Writes reports of many tenants in one transaction with two statements, for any number of tenants.

Both call functions of the schema, which set one tenant after the other (migration 0007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.outcome import Tally
from rollwave.domain.reports.parse import Report
from rollwave.store import campaign_rows, executions
from rollwave.store.campaign_rows import CampaignCounters
from rollwave.store.database import Connection, Pool, system_transaction
from rollwave.store.executions import Effect, Times
from rollwave.store.outage import refusing_values
from rollwave.store.queries import load

_sql = load("many_tenants")

LOCK_WAIT_SECONDS = 0.5
"""Maximum number of seconds for which locked rows of one tenant may delay the other tenants."""


def transaction(pool: Pool) -> AbstractAsyncContextManager[Connection]:
    """A transaction without a tenant that waits only a short time for locks."""
    return system_transaction(pool, lock_timeout=LOCK_WAIT_SECONDS, generic_plans=True)


class TenantReport(NamedTuple):
    """A report, and the device that it is of, by its tenant."""

    tenant_id: TenantId
    device_id: DeviceId
    report: Report


async def apply_reports(connection: Connection, said: Sequence[TenantReport], times: Times) -> list[Effect]:
    """Apply at most one report per execution, none of them a failure. Returns the effect of each, in the same order.

    Raises:
        ValueRefused: PostgreSQL refuses a value of one of the reports.
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
    """A campaign whose counters changed, with its new counters."""

    tenant_id: TenantId
    counters: CampaignCounters


async def count(connection: Connection, tallies: Mapping[TenantId, Tally]) -> list[Counted]:
    """Change counters by the rows that this transaction changed. Returns the new counters of those campaigns."""
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
    return [Counted(row["tenant"], campaign_rows.counters(row)) for row in rows]
