from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hypothesis import example, given
from hypothesis import strategies as st

from rollwave.domain.execution import LEEWAY, RANK, TERMINAL, ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.reports.outcome import (
    BURST,
    EARNED_EVERY_SECONDS,
    PROGRESS_STEP_POINTS,
    DeviceThrottle,
    Outcome,
    charged,
)
from rollwave.domain.reports.parse import Report

S = ExecutionStatus
PROGRESS_TIMEOUT_SECONDS = 1000.0


def make_report(
    status: ExecutionStatus, campaign: int = 1, attempt: int | None = None, progress: int | None = None
) -> Report:
    return Report(CampaignId(campaign), status, progress, attempt=attempt)


def throttle_after(*statuses: ExecutionStatus, progress_timeout: float = PROGRESS_TIMEOUT_SECONDS) -> DeviceThrottle:
    """The throttle of a device whose reports were written at time 0."""
    throttle = DeviceThrottle()
    for status in statuses:
        assert throttle.hear(make_report(status), now=0.0, behind=False) is None
        throttle.wrote(make_report(status), at=0.0, progress_timeout=progress_timeout)
    return throttle


def flood(
    throttle: DeviceThrottle, report: Report, *, times: int, now: float = 1.0, behind: bool = False
) -> list[Outcome | None]:
    return [throttle.hear(report, now=now, behind=behind) for _ in range(times)]


def test_repeated_reports_over_the_rate_are_throttled() -> None:
    throttle = throttle_after(S.DOWNLOADING)
    assert flood(throttle, make_report(S.DOWNLOADING), times=BURST + 5) == [None] * BURST + [Outcome.THROTTLED] * 5
    assert flood(throttle, make_report(S.DOWNLOADING), times=2, now=1.0 + EARNED_EVERY_SECONDS) == [
        None,
        Outcome.THROTTLED,
    ]


def test_of_progress_by_single_percents_every_tenth_is_written() -> None:
    throttle, shown, written = throttle_after(S.DOWNLOADING), 0, 0
    for progress in range(1, 101):  # Ten times a second.
        if throttle.hear(make_report(S.DOWNLOADING, progress=progress), now=progress / 10, behind=False) is None:
            shown, written = progress, written + 1
        assert progress - shown < PROGRESS_STEP_POINTS
    assert written <= 10


def test_progress_that_goes_down_and_up_again_is_throttled() -> None:
    throttle = throttle_after(S.DOWNLOADING)
    words = [make_report(S.DOWNLOADING, progress=each) for each in (100, 0) * 50]
    assert sum(throttle.hear(each, now=1.0, behind=False) is None for each in words) == 1 + BURST


def test_alternating_between_states_is_throttled() -> None:
    throttle = throttle_after(S.DOWNLOADING, S.INSTALLING)
    words = [make_report(S.DOWNLOADING), make_report(S.INSTALLING)] * BURST
    assert [throttle.hear(each, now=1.0, behind=False) for each in words][BURST:] == [Outcome.THROTTLED] * BURST


def test_new_states_and_attempts_are_never_throttled() -> None:
    for news in (
        make_report(S.INSTALLING),
        make_report(S.SUCCESS),
        make_report(S.FAILED),
        make_report(S.DOWNLOADING, 2),
        make_report(S.DOWNLOADING, 1, 2),
    ):
        throttle = throttle_after(S.DOWNLOADING)
        flood(throttle, make_report(S.DOWNLOADING), times=100)
        assert throttle.hear(news, now=1.0, behind=True) is None


def test_after_a_failure_the_next_attempt_is_not_throttled() -> None:
    throttle = throttle_after(S.DOWNLOADING)
    flood(throttle, make_report(S.DOWNLOADING), times=100)
    assert throttle.hear(make_report(S.FAILED), now=1.0, behind=True) is None
    assert throttle.hear(make_report(S.DOWNLOADING), now=1.0, behind=True) is None


def test_under_load_a_device_that_was_just_written_is_not_written_again() -> None:
    throttle = throttle_after(S.DOWNLOADING)
    assert flood(throttle, make_report(S.DOWNLOADING), times=3, behind=True) == [Outcome.SHED] * 3
    assert throttle.hear(make_report(S.DOWNLOADING), now=PROGRESS_TIMEOUT_SECONDS * LEEWAY, behind=True) is None


def test_under_load_a_device_without_a_recent_write_is_written() -> None:
    throttle = DeviceThrottle()
    assert flood(throttle, make_report(S.DOWNLOADING), times=BURST + 2, behind=True) == [None] * (BURST + 1) + [
        Outcome.THROTTLED
    ]


def test_bad_messages_are_sampled_at_a_limited_rate() -> None:
    throttle = DeviceThrottle()
    assert [throttle.may_be_sampled(0.0, every=10.0, burst=2) for _ in range(4)] == [True, True, False, False]
    assert [throttle.may_be_sampled(10.0, every=10.0, burst=2) for _ in range(2)] == [True, False]


@given(st.lists(st.floats(0, 100), max_size=50))
def test_an_allowance_permits_its_burst_and_then_one_per_interval(gaps: list[float]) -> None:
    account, now, through = -inf, 0.0, 0
    for gap in gaps:
        now += gap
        after_it = charged(account, now, every=2.0, burst=3)
        account = account if after_it is None else after_it
        through += after_it is not None
    assert through <= 3 + now / 2.0


@dataclass
class Execution:
    """An execution in progress, changed as ``apply_reports`` changes it."""

    progress_timeout: float
    status: ExecutionStatus = S.DOWNLOADING
    due: float = 0.0

    def take(self, report: Report, now: float) -> bool:
        """Apply a report. Returns whether it was written."""
        if self.status in TERMINAL:
            return False
        forward = RANK[report.status] > RANK[self.status]
        again = report.status is self.status and self.due < now + self.progress_timeout
        if forward or again:
            self.status, self.due = report.status, now + self.progress_timeout * (1 + LEEWAY)
        return forward or again


words = st.tuples(
    st.sampled_from([S.DOWNLOADING] * 6 + [S.INSTALLING] * 6 + [S.SUCCESS, S.FAILED]),
    st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0, 10.0]),
    st.booleans(),
)


@given(st.lists(words, max_size=200), st.sampled_from([0.02, 1.0, 30.0]))
@example([(S.DOWNLOADING, 0.01, True)] * 200, 1.0)
def test_throttling_never_changes_the_final_row_or_shortens_a_deadline(
    reports: list[tuple[ExecutionStatus, float, bool]], progress_timeout: float
) -> None:
    throttle, now = DeviceThrottle(), 0.0
    all_of_it, let_through = (
        Execution(progress_timeout, due=progress_timeout),
        Execution(progress_timeout, due=progress_timeout),
    )
    for status, gap, behind in reports:
        now += gap
        report = make_report(status)
        all_of_it.take(report, now)
        if throttle.hear(report, now=now, behind=behind) is None and let_through.take(report, now):
            throttle.wrote(report, at=now, progress_timeout=progress_timeout)
        assert let_through.status is all_of_it.status
        if let_through.status not in TERMINAL and RANK[status] == RANK[let_through.status]:
            assert let_through.due >= now + progress_timeout - 1e-6, "the progress timeout counts from the last report"
