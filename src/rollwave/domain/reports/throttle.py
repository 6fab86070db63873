"""Chatter: what a device says again. It may be left unwritten, within limits that keep every deadline.

A report is chatter when it is not terminal and says nothing further than the device has said before, in this
campaign and attempt. Only chatter is ever left out: when a device has too much of it, and, while reports come faster
than they can be written, whenever the device has just been heard.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from rollwave.domain.execution import RANK, TERMINAL
from rollwave.domain.reports.outcome import Outcome
from rollwave.domain.reports.parse import Report

EARNED_EVERY_SECONDS, BURST = 5.0, 3
"""Seconds for which a device earns one report of chatter, and how many it can have saved up."""

PROGRESS_STEP_POINTS = 25
"""Points of progress that are no chatter: what is shown is never further behind what a device said last."""

LEEWAY = 0.1
"""The share of a device's patience for which chatter may be left out after a word was written. A written word sets the
deadline so much later than the patience says (``apply_reports``), so that no deadline comes sooner for it."""


@dataclass(slots=True)
class Talk:
    """What one device has said. Times are seconds of whatever clock the caller keeps to."""

    campaign_id: int = 0
    attempt: int | None = None
    rank: int = 0
    """The furthest of what was let through."""
    progress: int = 0
    """The furthest that was let through of it."""
    written: float = -inf
    """When a word of this campaign and attempt was last written, and so the deadline set."""
    patience: float = 0.0
    """Seconds of silence that the campaign allows."""
    chatted: float = -inf
    bad: float = -inf

    def hear(self, report: Report, *, now: float, behind: bool) -> Outcome | None:
        """None lets ``report`` through, an outcome leaves it out. ``behind``: there is too much to write."""
        if report.status in TERMINAL:
            self._start(0, None)  # another attempt may follow, and its words are new
            return None
        if (self.campaign_id, self.attempt) != (report.campaign_id, report.attempt):
            self._start(report.campaign_id, report.attempt)
        rank = RANK[report.status]
        progress = report.progress or 0
        if rank > self.rank:
            self.rank, self.progress = rank, progress
            return None
        in_time = now - self.written < self.patience * LEEWAY
        if behind and in_time:
            return Outcome.SHED
        if rank == self.rank and progress >= self.progress + PROGRESS_STEP_POINTS:
            self.progress = progress
            return None
        chatted = charged(self.chatted, now, every=EARNED_EVERY_SECONDS, burst=BURST)
        if chatted is not None:
            self.chatted = chatted
            self.progress = max(self.progress, progress) if rank == self.rank else self.progress
            return None
        # Over its rate, but a deadline is to be set anew; where nothing was ever written there is none.
        return Outcome.THROTTLED if in_time or self.written == -inf else None

    def wrote(self, report: Report, *, at: float, patience: float) -> None:
        """``report`` has changed its execution; the transaction had begun by ``at``."""
        if (self.campaign_id, self.attempt) == (report.campaign_id, report.attempt):
            self.written, self.patience = at, patience

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
