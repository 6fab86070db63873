"""What a device does with a command: pure rules over what it remembers.

Commands come at least once, sometimes late, sometimes for a campaign that was dealt with long ago.
A device takes each attempt of a campaign once, one campaign at a time, and never installs a
firmware again that it has already reported ``SUCCESS`` for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import MAX_BIGINT
from rollwave.domain.reports.parse import cut
from rollwave.mqtt.payload import Command

REMEMBERED = 16
"""Finished campaigns a device remembers, so that a late repeat of one is answered and not run."""


@dataclass(frozen=True, slots=True)
class Job:
    """One command, taken: how far the device is with it, and why it failed if it did."""

    command: Command
    attempt: int | None = None
    status: ExecutionStatus = ExecutionStatus.DOWNLOADING
    error: str | None = None
    delivered: bool = False
    """Whether the broker has acknowledged the report of the outcome."""


@dataclass(frozen=True, slots=True)
class State:
    """All that a device remembers. ``finished`` has the newest first, one job a campaign."""

    running: Job | None = None
    waiting: Job | None = None
    finished: tuple[Job, ...] = ()


class Verdict(StrEnum):
    """What to do with a command."""

    START = "start"
    """Run it now: it is ``state.running``."""
    WAIT = "wait"
    """It is run once the present job is finished, unless a newer campaign comes first."""
    ANSWER = "answer"
    """Nothing to run: report ``job`` as it stands."""
    IGNORE = "ignore"
    """Neither run nor report; ``reason`` says why."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, the state that follows from it, and what it is about."""

    verdict: Verdict
    state: State
    job: Job | None = None
    reason: str = ""


def decide(state: State, command: Command, attempt: int | None = None, *, retained: bool = False) -> Decision:
    """Judge one command. ``attempt`` is None where the wire cannot carry it (MQTT 3.1.1)."""
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


def advance(state: State, status: ExecutionStatus) -> State:
    """The running job has come to ``status``."""
    assert state.running
    return replace(state, running=replace(state.running, status=status))


def finish(state: State, status: ExecutionStatus, error: str | None = None) -> State:
    """The running job has ended; the waiting one, if any, is next."""
    assert state.running
    job = replace(state.running, status=status, error=None if error is None else cut(error))
    return State(running=state.waiting, finished=_remember(state.finished, job))


def delivered(state: State, campaign_id: int, attempt: int | None) -> State:
    """The broker has the report of this attempt's outcome: it need not be sent again after a restart."""
    return replace(
        state,
        finished=tuple(
            replace(job, delivered=True) if (job.command.campaign_id, job.attempt) == (campaign_id, attempt) else job
            for job in state.finished
        ),
    )


def _refusal(command: Command, *, retained: bool) -> str:
    if retained:
        return "retained: a command is for those who are there when it is sent"
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
    """The engine may have given up on an attempt that is still at work: carry on under the new number.

    The command counts as it was said last, should it ever be said in other words.
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
