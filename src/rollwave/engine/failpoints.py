"""Named places at which a test may crash, pause or fail a worker.

Nothing in the program arms them: no setting, no environment variable, no request. Unarmed, reaching one is a look at
a variable, a few times for each batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeAlias


class Failpoint(StrEnum):
    """A moment in a worker's life; "written" means in a transaction that is not committed yet."""

    ASKING_WHAT_IS_DUE = "asking what is due"
    """The database is about to be asked which campaigns need a look."""

    CLAIM_WRITTEN = "claim written"
    CLAIMED = "claimed"
    PUBLISHING = "publishing"
    """One command of a batch has been handed to the broker, the others have not."""
    PUBLISHED = "published"
    MARK_WRITTEN = "mark written"
    MARKED = "marked"

    RECEIVED = "received"
    CLASSIFYING = "classifying"
    PARSED = "parsed"
    REPORTS_APPLIED = "reports applied"
    """One tenant's executions are written, its counters, history and samples are not."""
    REPORTS_WRITTEN = "reports written"
    REPORTS_COMMITTED = "reports committed"
    ACKNOWLEDGED = "acknowledged"
    ANSWERING = "answering"
    """Devices have asked what they should be doing, and are about to be answered."""

    CAMPAIGN_WRITTEN = "campaign written"
    """Looked after: a gate, a completion, a sweep of what is overdue, or nothing. Some devices targeted, or skipped."""


Action: TypeAlias = Callable[[Failpoint], Awaitable[None]]

_armed: Action | None = None


def arm(action: Action | None) -> None:
    """Have ``action`` called at every failpoint; None: no more. For tests alone."""
    global _armed  # noqa: PLW0603  a process has one engine to fail
    _armed = action


async def reach(point: Failpoint) -> None:
    """Be at ``point``: whatever the armed action does happens here."""
    if _armed is not None:
        await _armed(point)
