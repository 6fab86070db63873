"""Named places in the engine at which a test can crash, pause or fail a worker.

Only tests can arm them: no setting, environment variable or request does. Reaching an unarmed failpoint reads one
variable, a few times per batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeAlias


class Failpoint(StrEnum):
    """A place in a worker's code. "written" means: in a transaction that is not committed yet."""

    ASKING_WHAT_IS_DUE = "asking what is due"
    """The database is about to be asked which campaigns need a look."""

    CLAIM_WRITTEN = "claim written"
    CLAIMED = "claimed"
    PUBLISHING = "publishing"
    """One command of a batch is in the session's queue, the others are not."""
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
    """Devices have asked what they should do, and are about to be answered."""

    CAMPAIGN_WRITTEN = "campaign written"
    """A look has opened a wave, completed the campaign, or judged, targeted or skipped devices, or done nothing."""


Action: TypeAlias = Callable[[Failpoint], Awaitable[None]]

_armed: Action | None = None


def arm(action: Action | None) -> None:
    """Call ``action`` at every failpoint; None: stop that. For tests only."""
    global _armed  # noqa: PLW0603  a process has one engine to fail
    _armed = action


async def reach(point: Failpoint) -> None:
    """Run the armed action, if there is one, for ``point``."""
    if _armed is not None:
        await _armed(point)
