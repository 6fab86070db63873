"""What became of a report, and by how much each campaign's counters move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.reports.parse import Report

_UNSENT = (ExecutionStatus.PENDING, ExecutionStatus.SKIPPED)

Move: TypeAlias = tuple[CampaignId, ExecutionStatus | None, ExecutionStatus | None]
"""An execution of which campaign moved from where to where; None: it did not move."""

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
