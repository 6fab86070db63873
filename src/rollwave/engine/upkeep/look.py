"""What one look at a campaign does for it: gates between waves, completion, winding down after a stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rollwave.domain.campaign import Action, CampaignRef, CampaignStatus
from rollwave.domain.events import ENGINE, WaveOpened
from rollwave.domain.policy.admission import admit
from rollwave.domain.policy.document import Policy
from rollwave.domain.policy.facts import Remaining
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.locked_campaign import CampaignUnderPolicy, lock_campaign
from rollwave.engine.stop import Stopped
from rollwave.engine.timing import SOON_SECONDS
from rollwave.engine.upkeep import deadlines
from rollwave.engine.upkeep.counters import MAX_ADOPTED_PER_LOOK, Counters, take_over
from rollwave.keyed_tasks import KeyedTasks
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, events
from rollwave.store.campaigns import Campaign
from rollwave.store.counters import Outlook
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.outage import is_outage

_log = get_logger("upkeep")

_listener_log = get_logger("listener")

MAX_SETTLED_IN_PARALLEL = 2
"""Settled campaigns looked after at the same time: each may keep a connection for as long as its rows are read."""

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for the settled campaigns in hand to be let go."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a campaign came to: it was ``stopped`` or ``completed``, or may be once it is verified.

    Or it is ``being_targeted``, or ``to_count``: nothing is done until it is. Nor is anything sent while devices may be
    ``left_behind`` by a host that were not taken over yet. ``more``: devices may be overdue, or left by a host, that
    were not looked at yet. ``idle_seconds``: for so long there is nothing to send.
    """

    stopped: Stopped | None = None
    completed: bool = False
    to_verify: Outlook | None = None
    being_targeted: bool = False
    to_count: bool = False
    left_behind: bool = False
    more: bool = False
    idle_seconds: float = 0.0


class Upkeep:
    """Looks after one campaign at a time; any number of workers may do so at once."""

    def __init__(self, pool: Pool, settings: Settings, *, max_adopted_per_look: int = MAX_ADOPTED_PER_LOOK) -> None:
        self._max_adopted_per_look = max_adopted_per_look
        self._pool = pool
        self._settings = settings
        self._counters = Counters(pool, settings)

    async def look_after(self, ref: CampaignRef) -> Look:
        """Do what the campaign needs now, if anything.

        A wave is concluded on counters that were verified after its last device was seen to be over. That reads every
        row, and for so long the campaign's lock is not held: in between, counters move with the rows.
        """
        look = await self._look(ref)
        if look.to_count:
            look = await self._look(ref, devices=await self._counters.count(ref))
        if look.to_verify and await self._counters.verify(ref):
            look = await self._look(ref, verified=look.to_verify)
        return look

    async def _look(self, ref: CampaignRef, *, verified: Outlook | None = None, devices: int | None = None) -> Look:
        """One transaction under the campaign's lock. What it finds to conclude, it does once that is ``verified``."""
        look = Look()
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            locked = await lock_campaign(connection, ref, self._settings, devices=devices)
            campaign = locked.row
            if campaign.status is CampaignStatus.ABORTED:
                look = await self._wind_down(connection, locked, verified)
            elif campaign.being_targeted:
                look = Look(being_targeted=True)
            elif campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
                look = await self._go_on(connection, locked, verified, counted=devices is not None)
            elif ref.status is CampaignStatus.COMPLETED:  # by a host's SQL, and so nobody has wound it down
                look = await self._finish_winding_down(connection, campaign, verified)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if look.stopped:
            look.stopped.announce()
        if look.completed:
            _log.info(
                "ota_campaign_completed",
                campaign_id=campaign.id,
                tenant_id=campaign.tenant_id,
                succeeded=campaign.succeeded,
                failed=campaign.failed,
            )
        return look

    async def _go_on(
        self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None, *, counted: bool
    ) -> Look:
        campaign, policy = locked.row, locked.policy
        if locked.unreadable is not None:
            return Look(
                await stop.pause_unreadable(
                    connection, campaign.tenant_id, stop.counters_of(campaign), locked.unreadable
                )
            )
        deadlines_run = await deadlines.note_activity(connection, campaign, policy, self._settings)
        left = await self._take_over(connection, campaign, policy, counted=counted)
        if left or not locked.waves:
            return left or Look(to_count=True)
        if deadlines_run:
            swept = await deadlines.sweep(connection, campaign, policy, sends_on=True)
            if swept.stopped or swept.any_failed or swept.more:
                return Look(swept.stopped, more=swept.more)  # the rest is judged on the new counters, next time
        return await self._pass_gate(connection, locked, verified)

    async def _take_over(
        self, connection: Connection, campaign: Campaign, policy: Policy, *, counted: bool
    ) -> Look | None:
        """What a host left in progress is taken over, and the campaign counted and judged. None: that is done.

        ``counted``: its rows have just been counted.
        """
        taken = await take_over(
            connection, campaign, progress_timeout=policy.progress_timeout, limit=self._max_adopted_per_look
        )
        if taken.more:
            return Look(left_behind=True)
        if taken.any_moved or not campaign.counted:
            # Idle: another worker counts them too.
            return Look(idle_seconds=SOON_SECONDS) if counted else Look(to_count=True)
        if counted:
            stopped = await stop.judge(connection, campaign.tenant_id, stop.counters_of(campaign))
            return Look(stopped) if stopped else None
        return None

    async def _pass_gate(self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None) -> Look:
        campaign, wave = locked.row, locked.wave
        outlook = await counters.outlook(connection, campaign)
        left = Remaining(waiting=outlook.waiting, unfinished=outlook.open)
        finished = admit(locked.policy, locked.facts(self._settings, heard=True, remaining=left)).wave_finished
        last = wave.number == locked.waves[-1].number
        if not outlook.any or not finished or (last and not outlook.finished):
            return Look(idle_seconds=0.0 if outlook.waiting else max(0.0, outlook.due_in or 0.0))
        if outlook != verified:
            return Look(to_verify=outlook)
        return await self._conclude(connection, campaign, outlook, wave.number)

    async def _conclude(self, connection: Connection, campaign: Campaign, outlook: Outlook, wave: int) -> Look:
        """The wave is over, and the counters are right: stop, complete, or open the next one."""
        stopped = await stop.judge(
            connection, campaign.tenant_id, stop.counters_of(campaign), at_gate=not outlook.finished
        )
        if stopped:
            return Look(stopped)
        if outlook.finished:
            await campaigns.move(connection, campaign, Action.FINISH, tenant_id=campaign.tenant_id, actor=ENGINE)
            return Look(completed=True)
        if campaign.status is CampaignStatus.RUNNING and await campaigns.open_wave(connection, campaign, wave + 1):
            await campaigns.pass_gate(connection, campaign, wave)
            opened = WaveOpened(wave + 1, campaign.succeeded, campaign.failed)
            await events.append(connection, campaign.tenant_id, campaign.id, opened, actor=ENGINE)
            _log.info("ota_wave_opened", campaign_id=campaign.id, tenant_id=campaign.tenant_id, wave=wave + 1)
        return Look()

    async def _wind_down(self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None) -> Look:
        """Devices still in progress may finish until their deadline; then the engine is done with the campaign.

        There may be ``more`` whose deadline has passed.
        """
        # Nothing is sent any more: a policy that cannot be read pauses nothing.
        campaign, policy = locked.row, locked.policy
        deadlines_run = await deadlines.note_activity(connection, campaign, policy, self._settings)
        taken = await take_over(
            connection, campaign, progress_timeout=policy.progress_timeout, limit=self._max_adopted_per_look
        )
        more = taken.more
        if deadlines_run:
            more = (await deadlines.sweep(connection, campaign, policy, sends_on=False)).more or more
        if more:
            return Look(more=True)
        return await self._finish_winding_down(connection, campaign, verified)

    async def _finish_winding_down(self, connection: Connection, campaign: Campaign, verified: Outlook | None) -> Look:
        """Be done with a campaign that is over, on verified counters: a host's SQL may have ended it, or moved rows."""
        outlook = await counters.outlook(connection, campaign)
        if campaign.status is CampaignStatus.ABORTED and (outlook.waiting or outlook.open):
            return Look()
        if outlook != verified:
            return Look(to_verify=outlook)
        await campaigns.mark_wound_down(connection, campaign)
        return Look()


class SettledCampaigns:
    """Looks after campaigns in which every device sent to is terminal, now and not at the next tick.

    To conclude a wave every row of the campaign is read. That is for no other campaign's reports to wait for.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._upkeep = Upkeep(pool, settings)
        self._looks = KeyedTasks(self._look_after, in_parallel=MAX_SETTLED_IN_PARALLEL)
        self._accepts = False

    @asynccontextmanager
    async def accepted(self) -> AsyncIterator[None]:
        """Accept campaigns during the block. Those in hand at its end are left to the next look of a worker."""
        self._accepts = True
        try:
            yield
        finally:
            self._accepts = False
            await self._looks.cancel(GIVE_UP_SECONDS)

    def look_after(self, settled: Sequence[CampaignRef]) -> None:
        """Begin to look after these, unless none are accepted: a batch may be committed after that has ended."""
        for ref in settled if self._accepts else ():
            self._looks.start_or_repeat(ref)

    async def _look_after(self, ref: CampaignRef) -> None:
        try:
            async with self._looks.turn(ref):
                await self._upkeep.look_after(ref)
        except Exception as error:  # noqa: BLE001  the next look of a worker does it
            if not is_outage(error):
                _listener_log.exception("ota_campaign_error", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
