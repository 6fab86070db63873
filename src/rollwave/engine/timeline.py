"""Reads the past of a campaign, its plan and its forecast, for the API and the overview."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain.brakes import Brake, BrakeKind
from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.overview import forecast as rules
from rollwave.domain.overview.forecast import Forecast, ForecastFacts
from rollwave.domain.overview.markers import MARKED, Marker, markers
from rollwave.domain.overview.plan import Plan, PlanPoint, in_turn, soaks_left
from rollwave.domain.overview.timeline import FINE_FOR_SECONDS, Point
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.waves import Soak
from rollwave.domain.policy.words import WaveState
from rollwave.engine.locked_campaign import under_policy
from rollwave.settings import Settings
from rollwave.store import campaigns, timeline, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.moments import Document, moment
from rollwave.store.overview import CampaignFacts
from rollwave.store.timeline import Now
from rollwave.store.waves import WaveRow

PARTS_IN_LIST = 2 * rules.PARTS
"""Points of the last hour that a forecast in a list is made of."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How fast a campaign goes, and when it will be done.

    ``rate_per_minute``: devices that finish per minute now; None: it does not run, or has run too shortly. ``plan``: of
    the policy in force; None: it has none.
    """

    rate_per_minute: float | None
    forecast: Forecast
    plan: Plan | None

    def to_json(self) -> Document:
        """The keys ``rate_per_minute``, ``forecast`` and ``plan`` of the overview."""
        found = self.forecast
        return {
            "rate_per_minute": self.rate_per_minute,
            "forecast": {"earliest": found.earliest, "latest": found.latest, "text": found.text},
            "plan": None if self.plan is None else {"ends_at": self.plan.ends_at},
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """The past of a campaign, and what is expected of it.

    ``points``: oldest first; the last one has the counters of now. ``plan``: the curve of all plans, each until the
    next one; None: there is none. ``recent``: devices that finished per minute in equal parts of the last hour, or of
    the whole campaign.
    """

    points: tuple[Point, ...]
    plan: tuple[PlanPoint, ...] | None
    forecast: Forecast
    rate_per_minute: float | None
    recent: tuple[float, ...]
    markers: tuple[Marker, ...]


async def read(pool: Pool, settings: Settings, tenant_id: str, campaign_id: int) -> Timeline:
    """Everything that a chart of a campaign shows, read in one transaction.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    async with tenant_transaction(pool, tenant_id, snapshot=True) as connection:
        campaign = await campaigns.get(connection, tenant_id, campaign_id)
        now, points = await _series(connection, campaign)
        drawn = in_turn(await timeline.plans(connection, tenant_id, campaign_id))
        marked = await timeline.marks(connection, tenant_id, campaign_id, sorted(MARKED))
    return Timeline(
        tuple(points),
        drawn or None,
        rules.forecast(_facts(campaign, settings, now, points)),
        _rate(campaign, now, points),
        tuple(rules.recent(points, points[-1].at)) if points else (),
        tuple(markers([(each.at, each.event) for each in marked])),
    )


async def outlook(connection: Connection, campaign: Campaign, settings: Settings) -> Outlook:
    """The rate, the forecast and the plan of a campaign, by its row as this transaction has read it."""
    now, points = await _series(connection, campaign)
    return Outlook(
        _rate(campaign, now, points),
        rules.forecast(_facts(campaign, settings, now, points)),
        await timeline.plan(connection, campaign.tenant_id, campaign.id),
    )


async def _series(connection: Connection, campaign: Campaign) -> tuple[Now, list[Point]]:
    """The stored series up to the present counters, so that its end is never older than what other pages show."""
    now = await timeline.counters(connection, campaign)
    points = await timeline.points(connection, campaign.tenant_id, campaign.id)
    points = [each for each in points if each.at < now.at]
    still = bool(points) and now.point is not None and points[-1].counters == now.point.counters
    if (
        now.point is not None
        and campaign.status is not CampaignStatus.CREATED
        and not (still and campaign.status in FINAL)
    ):
        points.append(now.point)
    return now, points


def _rate(campaign: Campaign, now: Now, points: list[Point]) -> float | None:
    return rules.rate_per_minute(points, now.at) if campaign.status is CampaignStatus.RUNNING else None


def _facts(campaign: Campaign, settings: Settings, now: Now, points: list[Point]) -> ForecastFacts:
    found = under_policy(campaign, settings)
    closed = [each for each in time_gates.stops(found.policy, found.facts(settings, heard=True)) if each.room == 0]
    return ForecastFacts(
        now.at,
        campaign.status,
        points,
        being_targeted=campaign.being_targeted,
        stopped=closed[0].text if closed else None,
        awaits_approval_of=_awaits_approval_of(campaign),
        held_for=_held_for(campaign, now),
        ended_at=now.completed_at,
    )


def _held_for(campaign: Campaign, now: Now) -> float:
    present = _present_wave(campaign)
    return held_for(campaign.document, campaign.wave, present.soak if present else None, now.at)


def held_for(document: PolicyDocument | None, wave: int, soak: Soak | None, now: datetime) -> float:
    """Seconds for which the policy still holds devices back: soaks, and windows that are closed now.

    ``soak``: of the present ``wave``; None: it has not begun.
    """
    if document is None:
        return 0.0
    window = time_gates.window(document, None, now)
    closed = 0.0
    if window is not None and window.room == 0 and window.until is not None:
        closed = max(0.0, (window.until - now).total_seconds())
    return closed + sum(soaks_left(document.waves, wave, soak, now))


def _awaits_approval_of(campaign: Campaign) -> str | None:
    """The name of the present wave, if its gate waits for a person."""
    present = _present_wave(campaign)
    return present.name if present is not None and present.state is WaveState.AWAITING_APPROVAL else None


def _present_wave(campaign: Campaign) -> WaveRow | None:
    return next((each for each in waves.of(campaign) if each.number == campaign.wave), None)


async def forecasts(connection: Connection, tenant_id: str, found: Mapping[int, CampaignFacts]) -> dict[int, Forecast]:
    """The forecasts of the running campaigns among these, by id, with one statement for all of them."""
    running = {number: each for number, each in found.items() if each.status is CampaignStatus.RUNNING}
    series = await timeline.lately(connection, tenant_id, list(running), seconds=FINE_FOR_SECONDS, parts=PARTS_IN_LIST)
    return {number: rules.forecast(_listed_facts(each, series[number])) for number, each in running.items()}


def _listed_facts(found: CampaignFacts, points: list[Point]) -> ForecastFacts:
    now = moment(found.row["read_at"])
    points = [each for each in points if each.at < now]
    if found.row["PENDING"] is not None:
        points.append(_present_point(found, now))
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


def _present_point(found: CampaignFacts, now: datetime) -> Point:
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
