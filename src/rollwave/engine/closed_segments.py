"""The segments of a campaign whose devices may not be sent to: their window is closed, or they are under quarantine."""

from __future__ import annotations

from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument, TripAction
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.store import cells
from rollwave.store.database import Connection
from rollwave.store.overdue import ClosedSegment


async def closed_segments(connection: Connection, locked: CampaignUnderPolicy) -> list[ClosedSegment]:
    """The closed segments with devices in flight, and when each opens. Needs the campaign's lock.

    Reads little if the policy can close none.
    """
    document, now = locked.policy.document, locked.row.read_at
    if document is None:
        return []
    if not _can_close(document) and not await cells.any_quarantined(connection, locked.row):
        return []
    found = []
    for each in await cells.in_flight_segments(connection, locked.row):
        window = time_gates.window(document, each.time_zone, now)
        if window is not None and not window.open:
            opens_in = None if window.until is None else (window.until - now).total_seconds()
            found.append(ClosedSegment(each.number, opens_in))
        elif each.quarantined:
            found.append(ClosedSegment(each.number, None))
    return found


def _can_close(document: PolicyDocument) -> bool:
    """Whether the policy has windows, or a guardrail that quarantines segments. One before an edit may have had."""
    windows = document.schedule is not None and bool(document.schedule.windows)
    return windows or any(each.action is TripAction.QUARANTINE for each in document.guardrails or ())
