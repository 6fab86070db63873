"""How a device decides about a command."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.device.codes import CANCELLED
from rollwave.device.decide import (
    REMEMBERED,
    Job,
    State,
    Verdict,
    advance,
    cancel,
    decide,
    delivered,
    finish,
)
from rollwave.domain.execution import ExecutionStatus
from rollwave.mqtt.payload import Command

SUCCESS, FAILED, INSTALLING = ExecutionStatus.SUCCESS, ExecutionStatus.FAILED, ExecutionStatus.INSTALLING


def command(campaign: int) -> Command:
    return Command(campaign, "http://host/fw", "2.0", "")


def ended(status: ExecutionStatus, attempt: int | None = 1, campaign: int = 7) -> State:
    return finish(decide(State(), command(campaign), attempt).state, status, "why")


def test_a_command_of_a_new_campaign_is_started() -> None:
    decision = decide(State(), command(7), 1)
    assert decision.verdict is Verdict.START
    assert decision.state.running == Job(command(7), 1)


@pytest.mark.parametrize(
    ("status", "known", "attempt", "verdict"),
    [
        (SUCCESS, 1, 1, Verdict.ANSWER),
        (SUCCESS, 1, 2, Verdict.ANSWER),
        (SUCCESS, 1, None, Verdict.ANSWER),
        (FAILED, 1, 1, Verdict.ANSWER),
        (FAILED, 2, 1, Verdict.ANSWER),
        (FAILED, 1, 2, Verdict.START),
        (FAILED, None, 1, Verdict.START),
        (FAILED, None, None, Verdict.START),
    ],
)
def test_a_repeat_of_a_finished_campaign_is_answered_with_its_outcome(
    status: ExecutionStatus, known: int | None, attempt: int | None, verdict: Verdict
) -> None:
    assert decide(ended(status, known), command(7), attempt).verdict is verdict


def test_an_answer_has_the_newer_attempt_and_is_delivered_again() -> None:
    state = delivered(ended(SUCCESS), 7, 1)
    assert state.finished[0].delivered
    decision = decide(state, command(7), 3)
    assert decision.job == replace(state.finished[0], attempt=3, delivered=False)
    assert decision.state.finished == (decision.job,)


def test_a_repeat_of_the_running_attempt_is_ignored_and_a_newer_one_is_adopted() -> None:
    state = advance(decide(State(), command(7), 1).state, INSTALLING)
    assert decide(state, command(7), 1).verdict is Verdict.IGNORE
    assert decide(state, command(7), None).verdict is Verdict.IGNORE
    decision = decide(state, command(7), 2)
    assert decision.verdict is Verdict.ANSWER
    assert decision.state.running == Job(command(7), 2, INSTALLING)


def test_of_campaigns_received_while_one_runs_the_newest_is_next() -> None:
    state = decide(State(), command(7), 1).state
    for campaign in (8, 9):
        decision = decide(state, command(campaign), 1)
        assert decision.verdict is Verdict.WAIT
        state = decision.state
    assert decide(state, command(9), 1).verdict is Verdict.IGNORE
    assert finish(state, FAILED).running == Job(command(9), 1)


def test_a_late_repeat_of_an_older_campaign_does_not_bring_its_firmware_back() -> None:
    state = finish(decide(ended(SUCCESS), command(8), 1).state, SUCCESS)
    assert decide(state, command(7), 1).verdict is Verdict.ANSWER


@pytest.mark.parametrize(
    ("bad", "retained"),
    [
        (command(7), True),
        (replace(command(7), action="reboot"), False),
        (replace(command(7), campaign_id=0), False),
        (replace(command(7), campaign_id=2**63), False),
    ],
)
def test_a_command_that_is_not_for_this_device_is_ignored(bad: Command, retained: bool) -> None:
    decision = decide(State(), bad, 1, retained=retained)
    assert (decision.verdict, decision.state) == (Verdict.IGNORE, State())
    assert decision.reason


orders = st.tuples(st.integers(1, 5), st.integers(1, 3))
events = st.lists(st.one_of(orders, st.sampled_from([SUCCESS, FAILED])), max_size=60)


@given(events)
def test_each_attempt_is_run_once_and_none_after_success(
    events: list[tuple[int, int] | ExecutionStatus],
) -> None:
    state, ran, succeeded = State(), list[int](), set[int]()
    for event in events:
        before = state.running
        if isinstance(event, ExecutionStatus):
            if state.running is None:
                continue
            if event is SUCCESS:
                succeeded.add(state.running.command.campaign_id)
            state = finish(state, event)
        else:
            state = decide(state, command(event[0]), event[1]).state
        started = state.running
        if started and (before is None or started.command != before.command):
            assert started.command.campaign_id not in succeeded
            ran.append(started.command.campaign_id)
    assert all(ran.count(campaign) <= 3 for campaign in ran)
    assert len(state.finished) == len({job.command.campaign_id for job in state.finished}) <= REMEMBERED


def test_a_cancel_command_ends_a_download() -> None:
    decision = cancel(decide(State(), command(7), 2).state, 7)
    ended_job = Job(command(7), 2, FAILED, "the campaign was cancelled", code=CANCELLED)
    assert (decision.verdict, decision.job) == (Verdict.CANCEL, ended_job)
    assert decision.state == State(None, None, (ended_job,))
    assert decide(decision.state, command(7), 2).verdict is Verdict.ANSWER, "a late repeat does not start it again"


def test_a_cancel_command_for_the_running_job_starts_the_waiting_one() -> None:
    waiting = decide(decide(State(), command(7), 1).state, command(8), 1).state
    assert cancel(waiting, 7).state.running == Job(command(8), 1)


def test_a_cancel_command_for_the_waiting_job_leaves_the_running_one() -> None:
    waiting = decide(decide(State(), command(7), 1).state, command(8), 1).state
    decision = cancel(waiting, 8)
    assert (decision.state.running, decision.state.waiting) == (Job(command(7), 1), None)
    assert decision.job is not None
    assert (decision.job.command.campaign_id, decision.job.code) == (8, CANCELLED)


@pytest.mark.parametrize("retained", [False, True])
def test_a_device_that_installs_or_has_no_such_job_ignores_a_cancel_command(retained: bool) -> None:
    downloading = decide(State(), command(7), 1).state
    for state, campaign in ((advance(downloading, INSTALLING), 7), (downloading, 8), (State(), 7), (ended(FAILED), 7)):
        decision = cancel(state, campaign, retained=retained)
        assert (decision.verdict, decision.state) == (Verdict.IGNORE, state)
    assert cancel(downloading, 7, retained=True).verdict is Verdict.IGNORE
