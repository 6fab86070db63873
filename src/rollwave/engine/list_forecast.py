"""When the running campaigns of a list will be done: the overview's rule, on a thinned series of their last hour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from rollwave.domain.brakes import Brake, BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview import forecast as rules
from rollwave.domain.overview.forecast import Forecast, ForecastFacts
from rollwave.domain.overview.timeline import FINE_FOR_SECONDS, Point
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.waves import Soak
from rollwave.domain.policy.words import WaveState
from rollwave.engine.timeline import held_for
from rollwave.store import timeline
from rollwave.store.database import Connection
from rollwave.store.moments import Document
from rollwave.store.overview import CampaignFacts

PARTS = 2 * rules.PARTS
"""Points of the last hour that a forecast in a list is made of."""


async def forecasts(connection: Connection, tenant_id: str, found: Mapping[int, CampaignFacts]) -> dict[int, Forecast]:
    """The forecasts of the running campaigns among these, by id, with one statement for all of them."""
    running = {number: each for number, each in found.items() if each.status is CampaignStatus.RUNNING}
    series = await timeline.lately(connection, tenant_id, list(running), seconds=FINE_FOR_SECONDS, parts=PARTS)
    return {number: rules.forecast(_facts(each, series[number])) for number, each in running.items()}


def _facts(found: CampaignFacts, points: list[Point]) -> ForecastFacts:
    now: datetime = found.row["read_at"]
    points = [each for each in points if each.at < now]
    if found.row["PENDING"] is not None:
        points.append(_present(found, now))
    present = next((each for each in found.waves if each["number"] == found.row["wave"]), {})
    brakes = [_brake(each) for each in found.stopped_by]
    closed = [each for each in time_gates.stops_of(found.document, brakes, now) if each.room == 0]
    since = present.get("soak_from")
    return ForecastFacts(
        now,
        found.status,
        points,
        being_targeted=found.row["targeted_devices"] is not None,
        stopped=closed[0].text if closed else None,
        awaits_approval_of=present["name"] if present.get("state") == WaveState.AWAITING_APPROVAL else None,
        held_for=held_for(found.document, found.row["wave"], None if since is None else Soak(_time(since), 0), now),
    )


def _present(found: CampaignFacts, now: datetime) -> Point:
    words = ("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")
    return Point(now, *(found.breakdown[each] for each in words))


def _brake(entry: Document) -> Brake:
    end = entry["until"]
    return Brake(
        BrakeKind(entry["kind"]),
        entry["name"],
        _time(entry["since"]),
        None if end is None else _time(end),
        entry["by"],
        entry["reason"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
