"""What becomes of a report, and by how much each campaign's counters move.

It may be left unwritten: as a repetition (:class:`DeviceThrottle`), or because another one of its batch says more
(:func:`one_per_execution`). Else it is compared with the execution that it met (:func:`outcome_of`).
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
    """An execution of a campaign moved from one state to another; None: it did not move."""

    campaign_id: CampaignId
    was: ExecutionStatus | None
    became: ExecutionStatus | None


Tally: TypeAlias = "Counter[tuple[CampaignId, ExecutionStatus]]"
"""By how many executions each campaign's states have grown, or shrunk."""

MAX_ATTEMPTS_PER_BATCH = 4
"""Attempts of one device that are read in one batch."""

EARNED_EVERY_SECONDS, BURST = 5.0, 3
"""Seconds in which a device may send one more repetition, and the maximum number of repetitions in a row."""

PROGRESS_STEP_POINTS = 25
"""A report with so many more points of progress is no repetition: the progress shown is never further behind."""


class Outcome(StrEnum):
    """What became of one message."""

    APPLIED = "applied"
    COALESCED = "coalesced"
    """A later report in the same batch said more."""
    THROTTLED = "throttled"
    """The device repeated what it had reported, too often."""
    SHED = "shed"
    """The device repeated what it had reported, while more reports came than could be written."""
    DUPLICATE = "duplicate"
    LATE = "late"
    """It is less far than what is known already."""
    CONFLICT = "conflict"
    """It contradicts a terminal state."""
    STALE = "stale_attempt"
    NOT_SENT = "not_sent"
    """The campaign has sent this device nothing."""
    UNKNOWN = "unknown"
    """This tenant has no such campaign, or the campaign no such device."""
    RETAINED = "retained"
    EMPTY = "empty"
    QUESTION = "question"
    """No report: the device asks what it should be doing."""
    BAD_TOPIC = "bad_topic"
    BAD_PAYLOAD = "bad_payload"
    INVALID = "invalid_data"


def outcome_of(report: Report, *, was: ExecutionStatus | None, attempt: int | None, applied: bool) -> Outcome:
    """Compare the report with the execution as it ``was`` under its ``attempt``. ``applied``: the report changed it."""
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
    """Add up the moves."""
    result: Tally = Counter()
    for campaign_id, was, became in moves:
        if was is not None and became is not None:
            result[campaign_id, was] -= 1
            result[campaign_id, became] += 1
    return result


def ended_in(tally: Tally) -> set[CampaignId]:
    """Campaigns of which executions reached a terminal state."""
    return {campaign_id for (campaign_id, status), moved in tally.items() if status in TERMINAL and moved}


def one_per_execution(reports: Iterable[DeviceReport]) -> list[list[DeviceReport]]:
    """Keep the furthest report of each execution and attempt, in lists with at most one report of an execution each.

    The lists are to be written one after the other. Nearly always there is one. There are more where a batch has
    reports of one device under different attempts, or a failure after other reports (which tell why the attempt
    failed). Of one device no more than ``MAX_ATTEMPTS_PER_BATCH`` attempts are read.
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
    # Of two terminal reports the first one counts.
    return new.status not in TERMINAL and (new.progress or 0) > (known.progress or 0)


@dataclass(slots=True)
class DeviceThrottle:
    """What one device has reported. Times are seconds of the caller's monotonic clock.

    A report is a repetition when it is not terminal and is no further than what the device has reported before in this
    campaign and attempt. Only repetitions are left out: when a device sends too many of them, and, while reports come
    faster than they can be written, shortly after a report of the device was stored. Every deadline is kept.
    """

    campaign_id: int = 0
    attempt: int | None = None
    rank: int = 0
    """The furthest of what was let through."""
    progress: int = 0
    """The furthest that was let through of it."""
    written: float = -inf
    """When a report of this campaign and attempt was last stored, which set the deadline."""
    progress_timeout: float = 0.0
    """Of the campaign, in seconds."""
    repeated: float = -inf
    bad: float = -inf

    def hear(self, report: Report, *, now: float, behind: bool) -> Outcome | None:
        """None lets ``report`` through, an outcome leaves it out. ``behind``: there is too much to write."""
        if report.status in TERMINAL:
            self._start(0, None)  # another attempt may follow, and its reports are new
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
        # Over its rate, but a deadline is to be set anew; where nothing was ever written there is none.
        return Outcome.THROTTLED if in_time or self.written == -inf else None

    def wrote(self, report: Report, *, at: float, progress_timeout: float) -> None:
        """``report`` has changed its execution; the transaction had begun by ``at``."""
        if (self.campaign_id, self.attempt) == (report.campaign_id, report.attempt):
            self.written, self.progress_timeout = at, progress_timeout

    def may_be_sampled(self, now: float, *, every: float, burst: int) -> bool:
        """Whether a bad message of this device is worth a look, or it has had its share of attention."""
        bad = charged(self.bad, now, every=every, burst=burst)
        self.bad = self.bad if bad is None else bad
        return bad is not None

    def _start(self, campaign_id: int, attempt: int | None) -> None:
        self.campaign_id, self.attempt, self.rank, self.progress, self.written = campaign_id, attempt, 0, 0, -inf


def charged(account: float, now: float, *, every: float, burst: int) -> float | None:
    """Charge one to an allowance of one ``every`` so many seconds, ``burst`` at once; None: there is none left.

    ``account`` is what the last charge returned: the time at which the allowance is whole again (-inf: it is).
    """
    due = max(account, now)
    return due + every if due - now <= every * (burst - 1) else None
