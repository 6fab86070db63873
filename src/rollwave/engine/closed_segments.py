"""The segments of a campaign whose devices may not be sent to: their window is closed, or they are under quarantine."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.gates import Verdict
from rollwave.domain.policy.placing import is_zoned
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.store import cells, segments
from rollwave.store.database import Connection
from rollwave.store.standing import ClosedSegment

NOT_PLACED = 0
"""The segment of devices that are not placed. Under a policy document, none of them is sent to."""


async def closed_segments(connection: Connection, locked: CampaignUnderPolicy) -> list[ClosedSegment]:
    """The closed segments, and when each opens.

    Unless a window closes some of them, only those under quarantine are closed, which the campaign's row was read with.
    """
    document, now = locked.policy.document, locked.row.read_at
    if document is None:
        return []
    if _only_quarantine_closes(document, now):
        return [ClosedSegment(number, None) for number in locked.row.quarantined]
    found = []
    for each in await cells.segments(connection, locked.row):
        window = time_gates.window(document, each.time_zone, now)
        if window is not None and not window.open:
            opens_in = None if window.until is None else (window.until - now).total_seconds()
            found.append(ClosedSegment(each.number, opens_in))
        elif each.quarantined:
            found.append(ClosedSegment(each.number, None))
    return found


async def closed_among(connection: Connection, locked: CampaignUnderPolicy, numbers: Collection[int]) -> set[int]:
    """Those segments of these ``numbers`` whose devices may not be sent to now. ``NOT_PLACED`` is one of them."""
    document, now = locked.policy.document, locked.row.read_at
    if document is None:
        return set()
    closed = {NOT_PLACED, *locked.row.quarantined}
    if not _only_quarantine_closes(document, now) and (asked := set(numbers) - closed):
        found = await segments.described(connection, locked.row, asked)
        open_ = {number for number, each in found.items() if _is_open(time_gates.window(document, each.time_zone, now))}
        closed |= asked - open_
    return closed & set(numbers)


def _only_quarantine_closes(document: PolicyDocument, now: datetime) -> bool:
    """Whether no window is closed for any segment. Where windows ask for the devices' zones, that is not known."""
    return not is_zoned(document) and _is_open(time_gates.window(document, None, now))


def _is_open(window: Verdict | None) -> bool:
    return window is None or window.open
