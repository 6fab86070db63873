"""Writes the past of a campaign for charts: its counters from time to time, and the plan of each policy revision.

A look writes at most one point every few seconds, and none while the counters stay the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview import plan as plans
from rollwave.domain.overview.plan import Plan, PlanFacts, PlannedWave
from rollwave.domain.overview.timeline import MAX_POINTS, SURPLUS_POINTS, Point, resolution, surplus
from rollwave.engine.locked_campaign import CampaignUnderPolicy
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import timeline, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection

_log = get_logger("upkeep")

MAX_KEPT = 20_000
"""Maximum number of campaigns of which a process knows when it wrote last."""

LEEWAY = 0.25
"""Share of the time between two points by which a look may be early: the clocks of process and database differ."""

LOOKS_APART_SECONDS = 10.0
"""Most seconds between two looks at a campaign that is due."""


@dataclass(slots=True)
class _Written:
    """What a process knows of a campaign's series.

    ``apart``: seconds between two points. ``next_at``: when the next one may be written, by this process's clock.
    ``planned``: the revision that has its plan.
    """

    apart: float = 1.0
    next_at: float = 0.0
    planned: int | None = None


class Timeline:
    """Writes the series and the plans of campaigns. Any number of workers may do this at the same time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._written: dict[tuple[str, int], _Written] = {}

    async def note(self, connection: Connection, locked: CampaignUnderPolicy, *, now: bool = False) -> None:
        """Write the counters as they are in this transaction, if it is time, and the plan if there is none yet.

        Needs the campaign's lock. ``now``: write the counters in any case, if they have changed: the campaign ends.
        """
        campaign = locked.row
        if campaign.status is CampaignStatus.CREATED or campaign.being_targeted or not campaign.counting:
            return
        written = self._of(campaign)
        if now or time.monotonic() >= written.next_at:
            await self._write(connection, campaign, written, now=now)
        if written.planned != timeline.revision_of(campaign) and campaign.status in {
            CampaignStatus.RUNNING,
            CampaignStatus.PAUSED,
        }:
            await self._plan(connection, locked, written)

    def _of(self, campaign: Campaign) -> _Written:
        key = campaign.tenant_id, campaign.id
        if key not in self._written and len(self._written) >= MAX_KEPT:
            del self._written[next(iter(self._written))]
        return self._written.setdefault(key, _Written())

    async def _write(self, connection: Connection, campaign: Campaign, written: _Written, *, now: bool) -> None:
        apart = 0.0 if now else written.apart * (1 - LEEWAY)
        length = await timeline.write(
            connection, campaign, apart=apart, looks_apart=LOOKS_APART_SECONDS + written.apart
        )
        written.apart = resolution(0.0, length.elapsed)
        written.next_at = time.monotonic() + written.apart
        if length.points > MAX_POINTS + SURPLUS_POINTS:
            series = await timeline.points(connection, campaign.tenant_id, campaign.id)
            times = {each.at.timestamp(): each.at for each in series}
            await timeline.remove(connection, campaign, [times[each] for each in surplus(list(times))])

    async def _plan(self, connection: Connection, locked: CampaignUnderPolicy, written: _Written) -> None:
        campaign = locked.row
        if not await timeline.plan_made(connection, campaign):
            stored = await timeline.counters(connection, campaign)
            if stored.point is None or not _is_placed(campaign):
                return
            await timeline.write_plan(connection, campaign, self._ideal(locked, stored.point))
        written.planned = timeline.revision_of(campaign)

    def _ideal(self, locked: CampaignUnderPolicy, counters: Point) -> Plan | None:
        campaign, document = locked.row, locked.policy.document
        size = campaign.firmware_size
        try:
            facts = PlanFacts(
                campaign.read_at,
                campaign.sent,
                campaign.succeeded,
                _waves_left(locked, counters),
                locked.policy.rate * 60 / self._settings.tick_interval if document is None else None,
                None if document is None else document.pace,
                None if document is None else document.schedule,
                size if isinstance(size, int) else None,
            )
            return plans.ideal(facts)
        except Exception:  # noqa: BLE001  a chart must not keep the campaign from being sent
            _log.exception("ota_plan_failed", campaign_id=campaign.id, tenant_id=campaign.tenant_id)
            return None


def _is_placed(campaign: Campaign) -> bool:
    """Whether the sizes of the waves of its document are known."""
    if campaign.document is None:
        return True
    sizes = {each.number: each.size for each in waves.of(campaign)}
    return all(sizes.get(number) is not None for number in range(len(campaign.document.waves)))


def _waves_left(locked: CampaignUnderPolicy, counters: Point) -> list[PlannedWave]:
    """The devices never sent to, by wave, from the present wave on."""
    campaign, document = locked.row, locked.policy.document
    unsent = max(0, counters.unfinished + counters.finished - campaign.sent)
    if document is None:
        return _flat_waves_left(locked, unsent)
    if not document.waves:
        return [PlannedWave(unsent)]
    present, *later = waves.of(campaign)[campaign.wave : len(document.waves)]
    left_later = [each.size or 0 for each in later]
    left = [max(0, unsent - sum(left_later)), *left_later]
    soaks = plans.soaks_left(document.waves, present.number, present.soak, campaign.read_at)
    return [PlannedWave(devices, soak) for devices, soak in zip(left, soaks, strict=True)]


def _flat_waves_left(locked: CampaignUnderPolicy, unsent: int) -> list[PlannedWave]:
    """As :func:`_waves_left`, of flat columns: their waves end at a number of devices of the whole campaign."""
    left, sent = [], locked.row.sent
    for wave in locked.waves[locked.row.wave :]:
        devices = unsent if wave.up_to is None else min(unsent, max(0, wave.up_to - sent))
        left.append(PlannedWave(devices))
        unsent, sent = unsent - devices, sent + devices
    return left
