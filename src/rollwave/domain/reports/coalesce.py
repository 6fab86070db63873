"""From a handful of reports to the least that must be written, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from itertools import chain
from typing import TypeAlias

from rollwave.domain.execution import RANK, TERMINAL, ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.reports.parse import Report

MAX_ATTEMPTS_PER_BATCH = 4

_UNSENT = (ExecutionStatus.PENDING, ExecutionStatus.SKIPPED)

Tally: TypeAlias = "Counter[tuple[CampaignId, ExecutionStatus]]"
"""By how many executions each campaign's states have grown, or shrunk."""


class Outcome(StrEnum):
    """What became of one message."""

    APPLIED = "applied"
    COALESCED = "coalesced"
    """A later report in the same batch said more."""
    THROTTLED = "throttled"
    """The device said again what it had said, too often."""
    SHED = "shed"
    """The device said again what it had said, while more came than could be written."""
    DUPLICATE = "duplicate"
    LATE = "late"
    """It says less than what is known already."""
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


def one_per_execution(reports: Iterable[tuple[DeviceId, Report]]) -> list[list[tuple[DeviceId, Report]]]:
    """Keep the furthest report of each execution and attempt, in rounds with one report an execution each.

    Nearly always there is one round; more where a batch holds reports of one device under different attempts, or a
    failure after other words (what came before it tells why the attempt failed). A device that makes up more attempts
    than ``MAX_ROUNDS`` at once is not listened to further.
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
    result: list[list[tuple[DeviceId, Report]]] = []
    for (_, device_id), attempts in furthest.items():
        for number, report in enumerate(chain.from_iterable(attempts.values())):
            if number == len(result):
                result.append([])
            result[number].append((device_id, report))
    return result


def _says_more(new: Report, known: Report) -> bool:
    if RANK[new.status] != RANK[known.status]:
        return RANK[new.status] > RANK[known.status]
    # Of two terminal reports the first one counts.
    return new.status not in TERMINAL and (new.progress or 0) > (known.progress or 0)


def outcome(report: Report, *, was: ExecutionStatus | None, attempt: int | None, applied: bool) -> Outcome:
    """Name what a report met: the execution as it ``was`` under its ``attempt``, and whether the report changed it."""
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


def tally(moves: Iterable[tuple[CampaignId, ExecutionStatus | None, ExecutionStatus | None]]) -> Tally:
    """Add up what moved: of which campaign, from where, to where (None: it did not move)."""
    result: Tally = Counter()
    for campaign_id, was, became in moves:
        if was is not None and became is not None:
            result[campaign_id, was] -= 1
            result[campaign_id, became] += 1
    return result


def ended(tally: Tally) -> set[CampaignId]:
    """Campaigns of which executions came to a terminal state."""
    return {campaign_id for (campaign_id, status), moved in tally.items() if status in TERMINAL and moved}
