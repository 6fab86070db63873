"""The segments of a campaign whose devices may not be sent to: their window is closed, or they are under quarantine."""

from __future__ import annotations

from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.store import cells
from rollwave.store.database import Connection
from rollwave.store.standing import ClosedSegment

NOT_PLACED = 0
"""The segment of devices that are not placed. Under a policy document, none of them is sent to."""


async def closed_segments(connection: Connection, locked: CampaignUnderPolicy) -> list[ClosedSegment]:
    """The closed segments, and when each opens.

    Without windows, it reads those under quarantine only.
    """
    document, now = locked.policy.document, locked.row.read_at
    if document is None:
        return []
    found = []
    for each in await cells.segments(connection, locked.row, quarantined=not _has_windows(document)):
        window = time_gates.window(document, each.time_zone, now)
        if window is not None and not window.open:
            opens_in = None if window.until is None else (window.until - now).total_seconds()
            found.append(ClosedSegment(each.number, opens_in))
        elif each.quarantined:
            found.append(ClosedSegment(each.number, None))
    return found


def _has_windows(document: PolicyDocument) -> bool:
    return document.schedule is not None and bool(document.schedule.windows)
