"""Which reports of which tenants are written in one transaction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.execution import REPORTABLE, ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.engine.ingest.classify import Share
from rollwave.engine.ingest.many_tenants import (
    MAX_REPORTS_OF_A_SMALL_SHARE,
    MAX_TRANSACTIONS_IN_PARALLEL,
    TENANTS_PER_TRANSACTION,
    is_plain,
    split_by_tenant,
)
from rollwave.store.many_tenants import TenantReport
from rollwave.store.quarantine import Sample

SUCCESS = Report(CampaignId(1), ExecutionStatus.SUCCESS, 100)


def reports(tenants: int, each: int) -> list[TenantReport]:
    return [
        TenantReport(TenantId(f"tenant-{tenant}"), DeviceId(f"dev-{device}"), SUCCESS)
        for device in range(each)
        for tenant in range(tenants)
    ]


def test_a_tenant_is_in_exactly_one_transaction_and_no_report_is_lost() -> None:
    said = reports(tenants=MAX_TRANSACTIONS_IN_PARALLEL * TENANTS_PER_TRANSACTION + 7, each=3)
    transactions = split_by_tenant(said)
    assert len(transactions) == MAX_TRANSACTIONS_IN_PARALLEL
    assert sorted(each for transaction in transactions for each in transaction) == sorted(said)
    tenants = [{tenant for tenant, _, _ in transaction} for transaction in transactions]
    assert not set.intersection(*tenants)
    assert all(len(each) >= TENANTS_PER_TRANSACTION for each in tenants)


def test_a_few_tenants_share_one_transaction() -> None:
    said = reports(tenants=TENANTS_PER_TRANSACTION, each=1)
    assert split_by_tenant(said) == [said]
    assert split_by_tenant([]) == [[]]


@given(st.lists(st.sampled_from(sorted(REPORTABLE)), max_size=MAX_REPORTS_OF_A_SMALL_SHARE + 2), st.booleans())
def test_a_share_with_a_failure_is_never_written_with_other_tenants(
    statuses: list[ExecutionStatus], sampled: bool
) -> None:
    reports = [DeviceReport(DeviceId("dev-1"), Report(CampaignId(1), status)) for status in statuses]
    share = Share(reports, [Sample(DeviceId("dev-2"), "not JSON", b"{")] if sampled else [])
    small = len(statuses) <= MAX_REPORTS_OF_A_SMALL_SHARE
    assert is_plain(share) == (small and not sampled and ExecutionStatus.FAILED not in statuses)
