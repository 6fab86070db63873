"""Decides what a device does with a command. Pure functions over the device's saved state.

A command may arrive more than once, late, or for a campaign that the device finished long ago.
A device runs each attempt of a campaign once, and one campaign at a time. After it has reported
``SUCCESS`` for a campaign, it does not install that campaign's firmware again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from rollwave.device.codes import CANCELLED
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import MAX_BIGINT
from rollwave.domain.reports.parse import cut
from rollwave.mqtt.payload import Command

REMEMBERED = 16
"""Number of finished campaigns that a device remembers. A repeated command of one is answered, and not run."""


@dataclass(frozen=True, slots=True)
class Job:
    """An accepted command, its current status, and the error message if it failed."""

    command: Command
    attempt: int | None = None
    status: ExecutionStatus = ExecutionStatus.DOWNLOADING
    error: str | None = None
    delivered: bool = False
    """Whether the broker has acknowledged the report of the outcome."""
    code: str | None = None
    """A code for the reason of the failure, for programs to read."""


@dataclass(frozen=True, slots=True)
class State:
    """The saved state of a device. ``finished`` has one job for each campaign, newest first."""

    running: Job | None = None
    waiting: Job | None = None
    finished: tuple[Job, ...] = ()


class Verdict(StrEnum):
    """What to do with a command."""

    START = "start"
    """Run it now. It is ``state.running``."""
    WAIT = "wait"
    """Run it after the running job, unless a command of another campaign replaces it before."""
    ANSWER = "answer"
    """Do not run it; report the current status of ``job``."""
    CANCEL = "cancel"
    """Stop ``job``, and report that."""
    IGNORE = "ignore"
    """Do not run it, and do not report. ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, the new state, and the job that it concerns."""

    verdict: Verdict
    state: State
    job: Job | None = None
    reason: str = ""


def decide(state: State, command: Command, attempt: int | None = None, *, retained: bool = False) -> Decision:
    """Decide what to do with one command.

    Args:
        attempt: the number of the attempt. None: the message has none, as over MQTT 3.1.1.
        retained: whether the broker had stored the message.
    """
    refusal = _refusal(command, retained=retained)
    if refusal:
        return Decision(Verdict.IGNORE, state, reason=refusal)
    if state.running and _same_campaign(state.running, command):
        return _repeat_of_running(state, state.running, command, attempt)
    if state.waiting and _same_campaign(state.waiting, command):
        if not _is_newer(attempt, state.waiting.attempt):
            return Decision(Verdict.IGNORE, state, reason="already waiting")
        return _take(state, Job(command, attempt))
    known = next((job for job in state.finished if _same_campaign(job, command)), None)
    if known and not _runs_again(known, attempt):
        return _repeat_of_finished(state, known, attempt)
    return _take(state, Job(command, attempt))


def cancel(state: State, campaign_id: int, *, retained: bool = False) -> Decision:
    """Decide what to do with a cancel command.

    A job that waits or downloads ends with FAILED and the code ``CANCELLED``: it is the decision's ``job``. One
    that installs carries on.
    """
    if retained:
        return Decision(Verdict.IGNORE, state, reason="retained: the command was sent before this device subscribed")
    if state.waiting and state.waiting.command.campaign_id == campaign_id:
        job = _cancelled(state.waiting)
        return Decision(Verdict.CANCEL, replace(state, waiting=None, finished=_remember(state.finished, job)), job)
    if state.running is None or state.running.command.campaign_id != campaign_id:
        return Decision(Verdict.IGNORE, state, reason="no job of this campaign")
    if state.running.status is not ExecutionStatus.DOWNLOADING:
        return Decision(Verdict.IGNORE, state, state.running, reason="it installs already")
    job = _cancelled(state.running)
    return Decision(Verdict.CANCEL, State(state.waiting, None, _remember(state.finished, job)), job)


def was_cancelled(state: State, job: Job) -> bool:
    """Whether a cancel command has ended this job: it is the last one that finished."""
    return any(each.code == CANCELLED and _same_campaign(each, job.command) for each in state.finished[:1])


def _cancelled(job: Job) -> Job:
    return replace(job, status=ExecutionStatus.FAILED, error="the campaign was cancelled", code=CANCELLED)


def advance(state: State, status: ExecutionStatus) -> State:
    """The state after the running job has reached ``status``."""
    assert state.running
    return replace(state, running=replace(state.running, status=status))


def finish(state: State, status: ExecutionStatus, error: str | None = None, code: str | None = None) -> State:
    """The state after the running job has ended. The waiting job, if any, becomes the running one."""
    assert state.running
    job = replace(state.running, status=status, error=None if error is None else cut(error), code=code)
    return State(running=state.waiting, finished=_remember(state.finished, job))


def delivered(state: State, campaign_id: int, attempt: int | None) -> State:
    """The state after the broker has acknowledged the outcome of this attempt: a restart does not send it again."""
    return replace(
        state,
        finished=tuple(
            replace(job, delivered=True) if (job.command.campaign_id, job.attempt) == (campaign_id, attempt) else job
            for job in state.finished
        ),
    )


def _refusal(command: Command, *, retained: bool) -> str:
    if retained:
        return "retained: the command was sent before this device subscribed"
    if command.action != "update":
        return "unknown action"
    if not 0 < command.campaign_id <= MAX_BIGINT:
        return "campaign_id is not a positive integer"
    return ""


def _same_campaign(job: Job, command: Command) -> bool:
    return job.command.campaign_id == command.campaign_id


def _is_newer(attempt: int | None, than: int | None) -> bool:
    return attempt is not None and (than is None or attempt > than)


def _runs_again(known: Job, attempt: int | None) -> bool:
    if known.status is ExecutionStatus.SUCCESS:
        return False
    return attempt is None or _is_newer(attempt, known.attempt)


def _take(state: State, job: Job) -> Decision:
    if state.running:
        return Decision(Verdict.WAIT, replace(state, waiting=job), job)
    return Decision(Verdict.START, replace(state, running=job), job)


def _repeat_of_running(state: State, running: Job, command: Command, attempt: int | None) -> Decision:
    """Handle a command of the campaign that is running.

    A newer attempt means that the engine gave up on the running one: the job continues under the new number. The
    newest command replaces the stored one, as its URL may have changed.
    """
    newer = _is_newer(attempt, running.attempt)
    job = replace(running, command=command, attempt=attempt if newer else running.attempt)
    state = replace(state, running=job)
    return Decision(Verdict.ANSWER, state, job) if newer else Decision(Verdict.IGNORE, state, reason="already running")


def _repeat_of_finished(state: State, known: Job, attempt: int | None) -> Decision:
    newest = attempt if _is_newer(attempt, known.attempt) else known.attempt
    job = replace(known, attempt=newest, delivered=False)
    finished = tuple(job if each is known else each for each in state.finished)
    return Decision(Verdict.ANSWER, replace(state, finished=finished), job)


def _remember(finished: tuple[Job, ...], job: Job) -> tuple[Job, ...]:
    others = (each for each in finished if not _same_campaign(each, job.command))
    return (job, *others)[:REMEMBERED]
