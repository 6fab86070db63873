"""How reports of many tenants are divided among transactions."""

from __future__ import annotations

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import Report
from rollwave.engine.ingest.many_tenants import MAX_LANES, TENANTS_PER_LANE, Said, lanes_of

SUCCESS = Report(CampaignId(1), ExecutionStatus.SUCCESS, 100)


def reports(tenants: int, each: int) -> list[Said]:
    return [
        (TenantId(f"tenant-{tenant}"), DeviceId(f"dev-{device}"), SUCCESS)
        for device in range(each)
        for tenant in range(tenants)
    ]


def test_a_tenant_is_in_exactly_one_lane_and_no_report_is_lost() -> None:
    all_reports = reports(tenants=MAX_LANES * TENANTS_PER_LANE + 7, each=3)
    lanes = lanes_of(all_reports)
    assert len(lanes) == MAX_LANES
    assert sorted(each for lane in lanes for each in lane) == sorted(all_reports)
    tenants = [{tenant for tenant, _, _ in lane} for lane in lanes]
    assert not set.intersection(*tenants)
    assert all(len(each) >= TENANTS_PER_LANE for each in tenants)


def test_a_few_tenants_share_one_lane() -> None:
    all_reports = reports(tenants=TENANTS_PER_LANE, each=1)
    assert lanes_of(all_reports) == [all_reports]
    assert lanes_of([]) == [[]]
