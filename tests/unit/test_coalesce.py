from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.execution import RANK, REPORTABLE, ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.reports.outcome import (
    MAX_ATTEMPTS_PER_BATCH,
    Move,
    Outcome,
    ended_in,
    one_per_execution,
    outcome_of,
    tally_of,
)
from rollwave.domain.reports.parse import DeviceReport, Report

S = ExecutionStatus


def make_report(status: ExecutionStatus, *, progress: int | None = None, attempt: int | None = None) -> Report:
    return Report(CampaignId(1), status, progress, None, attempt)


def test_the_furthest_report_of_a_device_is_kept() -> None:
    device = DeviceId("a")
    batch = [DeviceReport(device, make_report(S.DOWNLOADING, progress=p)) for p in (10, 90, 40)] + [
        DeviceReport(device, make_report(S.SUCCESS))
    ]
    assert one_per_execution(batch) == [[DeviceReport(device, make_report(S.SUCCESS))]]
    assert one_per_execution(batch[:3]) == [[DeviceReport(device, make_report(S.DOWNLOADING, progress=90))]]


def test_of_two_terminal_reports_the_first_counts() -> None:
    device = DeviceId("a")
    assert one_per_execution(
        [DeviceReport(device, make_report(S.FAILED)), DeviceReport(device, make_report(S.SUCCESS))]
    ) == [[DeviceReport(device, make_report(S.FAILED))]]


def test_a_failure_after_another_report_is_not_the_first_report() -> None:
    device = DeviceId("a")
    batch = [
        DeviceReport(device, make_report(S.DOWNLOADING)),
        DeviceReport(device, make_report(S.FAILED)),
        DeviceReport(device, make_report(S.SUCCESS)),
    ]
    assert one_per_execution(batch) == [[batch[0]], [batch[1]]]


def test_other_attempts_of_one_device_go_in_separate_lists() -> None:
    device = DeviceId("a")
    batch = [
        DeviceReport(device, make_report(S.FAILED, attempt=1)),
        DeviceReport(device, make_report(S.SUCCESS, attempt=2)),
    ]
    assert one_per_execution(batch) == [[batch[0]], [batch[1]]]


reports = st.builds(
    make_report,
    st.sampled_from(sorted(REPORTABLE)),
    progress=st.none() | st.integers(0, 100),
    attempt=st.sampled_from([None, 1, 2]),
)


@given(st.lists(st.builds(DeviceReport, st.sampled_from([DeviceId("a"), DeviceId("b")]), reports)))
def test_a_list_has_an_execution_once_and_no_later_state_is_lost(
    batch: list[DeviceReport],
) -> None:
    result = one_per_execution(batch)
    for each in result:
        assert len({device for device, _ in each}) == len(each)
    for device, report in batch:
        kept = [k for r in result for d, k in r if d == device and k.attempt == report.attempt]
        assert any(RANK[k.status] >= RANK[report.status] for k in kept)


def test_every_outcome_has_a_name() -> None:
    done = make_report(S.SUCCESS)
    assert outcome_of(done, was=None, attempt=None, applied=False) is Outcome.UNKNOWN
    assert outcome_of(done, was=S.PENDING, attempt=0, applied=False) is Outcome.NOT_SENT
    assert outcome_of(done, was=S.SKIPPED, attempt=0, applied=False) is Outcome.NOT_SENT
    assert outcome_of(done, was=S.SKIPPED, attempt=1, applied=False) is Outcome.CONFLICT
    assert outcome_of(done, was=S.DOWNLOADING, attempt=1, applied=True) is Outcome.APPLIED
    assert outcome_of(done, was=S.SUCCESS, attempt=1, applied=False) is Outcome.DUPLICATE
    assert outcome_of(done, was=S.FAILED, attempt=1, applied=False) is Outcome.CONFLICT
    assert outcome_of(make_report(S.DOWNLOADING), was=S.INSTALLING, attempt=1, applied=False) is Outcome.LATE
    assert outcome_of(make_report(S.DOWNLOADING), was=S.SUCCESS, attempt=1, applied=False) is Outcome.LATE
    assert outcome_of(make_report(S.SUCCESS, attempt=1), was=S.DOWNLOADING, attempt=2, applied=False) is Outcome.STALE


def test_the_totals_add_up_the_transitions_of_each_campaign() -> None:
    one, two = CampaignId(1), CampaignId(2)
    moved = tally_of(
        [
            Move(one, S.PENDING, S.DOWNLOADING),
            Move(one, S.DOWNLOADING, S.SUCCESS),
            Move(one, S.INSTALLING, None),
            Move(one, None, None),
            Move(two, S.DOWNLOADING, S.DOWNLOADING),
        ]
    )
    assert {key: number for key, number in moved.items() if number} == {(one, S.PENDING): -1, (one, S.SUCCESS): 1}
    assert ended_in(moved) == {one}
    assert ended_in(tally_of([Move(one, S.PENDING, S.INSTALLING)])) == set()


def test_reports_with_many_invented_attempts_take_few_lists() -> None:
    batch = [DeviceReport(DeviceId("a"), make_report(S.FAILED, attempt=n)) for n in range(1, 1000)]
    assert len(one_per_execution(batch)) == MAX_ATTEMPTS_PER_BATCH
