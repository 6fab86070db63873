"""Decides the outcome of each report, and the changes of campaign counters.

A report may be dropped before it is written: as a repetition (:class:`DeviceThrottle`), or because another report of
its batch is further (:func:`one_per_execution`). Otherwise :func:`outcome_of` compares it with its execution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import inf
from typing import NamedTuple, TypeAlias

from rollwave.domain.execution import LEEWAY, RANK, TERMINAL, ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.reports.parse import DeviceReport, Report

_UNSENT = (ExecutionStatus.PENDING, ExecutionStatus.SKIPPED)


class Move(NamedTuple):
    """The campaign of an execution, with its state before and after a report; None: the state did not change."""

    campaign_id: CampaignId
    was: ExecutionStatus | None
    became: ExecutionStatus | None


Tally: TypeAlias = "Counter[tuple[CampaignId, ExecutionStatus]]"
"""The change of the number of executions, by campaign and state."""

MAX_ATTEMPTS_PER_BATCH = 4
"""Maximum number of attempts of one device that are applied in one batch."""

EARNED_EVERY_SECONDS, BURST = 5.0, 3
"""Seconds per repetition that a device may send, and the maximum number of repetitions in a row."""

PROGRESS_STEP_POINTS = 25
"""Minimum increase of progress, in percentage points, for which a report is no repetition."""


class Outcome(StrEnum):
    """The outcome of one message."""

    APPLIED = "applied"
    COALESCED = "coalesced"
    """Another report in the same batch is further."""
    THROTTLED = "throttled"
    """A repetition of a device that repeats its reports too often."""
    SHED = "shed"
    """A repetition, dropped because reports arrive faster than they can be written."""
    DUPLICATE = "duplicate"
    LATE = "late"
    """The execution is already further than this report."""
    CONFLICT = "conflict"
    """It contradicts a terminal state."""
    STALE = "stale_attempt"
    NOT_SENT = "not_sent"
    """The campaign has not sent this device a command."""
    UNKNOWN = "unknown"
    """The tenant has no such campaign, or the campaign has no such device."""
    RETAINED = "retained"
    EMPTY = "empty"
    QUESTION = "question"
    """Not a report: the device asks what it should do."""
    BAD_TOPIC = "bad_topic"
    BAD_PAYLOAD = "bad_payload"
    INVALID = "invalid_data"


def outcome_of(report: Report, *, was: ExecutionStatus | None, attempt: int | None, applied: bool) -> Outcome:
    """The outcome of a report for an execution in state ``was`` and ``attempt``. ``applied``: it changed the row."""
    if applied:
        return Outcome.APPLIED
    if was is None:
        return Outcome.UNKNOWN
    if was in _UNSENT and not attempt:
        return Outcome.NOT_SENT
    if report.attempt is not None and report.attempt != attempt:
        return Outcome.STALE
    if was in TERMINAL:
        return Outcome.DUPLICATE if was is report.status else _after_the_end(report)
    return Outcome.DUPLICATE if was is report.status else Outcome.LATE


def _after_the_end(report: Report) -> Outcome:
    return Outcome.CONFLICT if report.status in TERMINAL else Outcome.LATE


def tally_of(moves: Iterable[Move]) -> Tally:
    """Add up the changes of state."""
    result: Tally = Counter()
    for (campaign_id, was, became), number in Counter(moves).items():  # most of them are alike
        if was is not None and became is not None:
            result[campaign_id, was] -= number
            result[campaign_id, became] += number
    return result


def ended_in(tally: Tally) -> set[CampaignId]:
    """Campaigns in which executions have become terminal."""
    return {campaign_id for (campaign_id, status), moved in tally.items() if status in TERMINAL and moved}


def one_per_execution(reports: Iterable[DeviceReport]) -> list[list[DeviceReport]]:
    """Keep the furthest report of each execution and attempt. Returns lists with at most one report per execution.

    The lists must be written one after the other. Usually there is one. There are more if a batch has reports of one
    device with different attempts, or a failure after other reports, which determine the reason of the failure. At most
    ``MAX_ATTEMPTS_PER_BATCH`` attempts of a device are kept.
    """
    said = list(reports)
    if len({(report.campaign_id, device_id) for device_id, report in said}) == len(said):
        return [said] if said else []
    furthest: dict[tuple[int, DeviceId], dict[int | None, list[Report]]] = {}
    for device_id, report in said:
        attempts = furthest.setdefault((report.campaign_id, device_id), {})
        if report.attempt not in attempts and len(attempts) == MAX_ATTEMPTS_PER_BATCH:
            continue
        words = attempts.setdefault(report.attempt, [])
        if not words or (report.status is ExecutionStatus.FAILED and _says_more(report, words[-1])):
            words.append(report)
        elif _says_more(report, words[-1]):
            words[-1] = report
    result: list[list[DeviceReport]] = []
    for (_, device_id), attempts in furthest.items():
        for number, report in enumerate(chain.from_iterable(attempts.values())):
            if number == len(result):
                result.append([])
            result[number].append(DeviceReport(device_id, report))
    return result


def _says_more(new: Report, known: Report) -> bool:
    if RANK[new.status] != RANK[known.status]:
        return RANK[new.status] > RANK[known.status]
    # If both are terminal, the first one counts.
    return new.status not in TERMINAL and (new.progress or 0) > (known.progress or 0)


@dataclass(slots=True)
class DeviceThrottle:
    """The last reports of one device. Times are seconds of the caller's monotonic clock.

    A report is a repetition if it is not terminal and not further than an earlier report of the device in this campaign
    and attempt. Only repetitions are dropped: if a device sends too many of them, and, while reports arrive faster than
    they can be written, shortly after a report of the device was stored. No deadline is missed because of that.
    """

    campaign_id: int = 0
    attempt: int | None = None
    rank: int = 0
    """The furthest state that was not dropped."""
    progress: int = 0
    """The furthest progress in this state that was not dropped."""
    written: float = -inf
    """Time when a report of this campaign and attempt was last stored, which set the deadline."""
    progress_timeout: float = 0.0
    """The campaign's progress timeout in seconds."""
    repeated: float = -inf
    bad: float = -inf

    def hear(self, report: Report, *, now: float, behind: bool) -> Outcome | None:
        """Decide whether to write ``report``. None: yes; an outcome: drop it. ``behind``: too many reports wait."""
        if report.status in TERMINAL:
            self._start(0, None)  # another attempt may follow, whose reports are no repetitions
            return None
        if (self.campaign_id, self.attempt) != (report.campaign_id, report.attempt):
            self._start(report.campaign_id, report.attempt)
        rank = RANK[report.status]
        progress = report.progress or 0
        if rank > self.rank:
            self.rank, self.progress = rank, progress
            return None
        in_time = now - self.written < self.progress_timeout * LEEWAY
        if behind and in_time:
            return Outcome.SHED
        if rank == self.rank and progress >= self.progress + PROGRESS_STEP_POINTS:
            self.progress = progress
            return None
        repeated = charged(self.repeated, now, every=EARNED_EVERY_SECONDS, burst=BURST)
        if repeated is not None:
            self.repeated = repeated
            self.progress = max(self.progress, progress) if rank == self.rank else self.progress
            return None
        # The device is over its rate, but its deadline must be extended. If nothing was ever written, it has none.
        return Outcome.THROTTLED if in_time or self.written == -inf else None

    def wrote(self, report: Report, *, at: float, progress_timeout: float) -> None:
        """Note that ``report`` has changed its execution, in a transaction that began before ``at``."""
        if (self.campaign_id, self.attempt) == (report.campaign_id, report.attempt):
            self.written, self.progress_timeout = at, progress_timeout

    def may_be_sampled(self, now: float, *, every: float, burst: int) -> bool:
        """Whether another invalid message of this device is logged and kept, or its limit is reached."""
        bad = charged(self.bad, now, every=every, burst=burst)
        self.bad = self.bad if bad is None else bad
        return bad is not None

    def _start(self, campaign_id: int, attempt: int | None) -> None:
        self.campaign_id, self.attempt, self.rank, self.progress, self.written = campaign_id, attempt, 0, 0, -inf


def charged(account: float, now: float, *, every: float, burst: int) -> float | None:
    """Take one from an allowance of one per ``every`` seconds, with up to ``burst`` at once. None: nothing is left.

    ``account``: the result of the last call, the time at which the allowance is full again (-inf: it is full).
    """
    due = max(account, now)
    return due + every if due - now <= every * (burst - 1) else None
