"""An execution only moves forward within an attempt, and the rank in SQL is that of the table."""

from __future__ import annotations

from rollwave.domain.execution import RANK, REPORTABLE, TERMINAL, TRANSITIONS, Cause, ExecutionStatus

S, C = ExecutionStatus, Cause


def test_only_an_operators_retry_leaves_a_terminal_state_and_only_a_failed_one() -> None:
    assert [move for move in TRANSITIONS if move[0] in TERMINAL] == [(S.FAILED, C.RETRIED_BY_OPERATOR)]


def test_only_another_attempt_may_go_back_to_an_earlier_state() -> None:
    for (status, cause), targets in TRANSITIONS.items():
        for to in targets:
            assert cause in (C.SILENT, C.RETRIED, C.RETRIED_BY_OPERATOR) or RANK[to] > RANK[status], (status, cause, to)


def test_a_report_can_only_move_a_device_to_later_reportable_states() -> None:
    for status in set(S) - TERMINAL:
        assert TRANSITIONS[status, C.REPORTED] == {to for to in REPORTABLE if RANK[to] > RANK[status]}


def test_only_devices_never_sent_to_can_be_skipped() -> None:
    assert {status for (status, _), targets in TRANSITIONS.items() if S.SKIPPED in targets} == {S.PENDING}
    assert (S.DOWNLOADING, C.STOPPED) not in TRANSITIONS
