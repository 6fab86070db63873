"""One look at a campaign: judges deadlines, opens waves, completes it, and winds it down after a stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rollwave.domain.campaign import Action, CampaignRef, CampaignStatus
from rollwave.domain.events import ENGINE, WaveOpened
from rollwave.domain.policy.admission import admit
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import Remaining
from rollwave.domain.policy.rules import Policy, wave_name
from rollwave.engine import stop
from rollwave.engine.closed_segments import closed_segments
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.locked_campaign import CampaignUnderPolicy, lock_campaign
from rollwave.engine.placing import OTHER_WAVES_HINT, begin_if_needed, has_waves_sent_to, other_waves
from rollwave.engine.stop import Stopped
from rollwave.engine.timing import SOON_SECONDS
from rollwave.engine.upkeep import deadlines, schedule, standing, waves
from rollwave.engine.upkeep.braked import note_brakes
from rollwave.engine.upkeep.counters import MAX_ADOPTED_PER_LOOK, Counters, take_over
from rollwave.engine.upkeep.deadlines import Noted
from rollwave.engine.upkeep.from_versions import FromVersions
from rollwave.engine.upkeep.timeline import Timeline
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, events, placing_progress
from rollwave.store.campaign_rows import Campaign
from rollwave.store.counters import Outlook
from rollwave.store.database import Connection, Pool, tenant_transaction

_log = get_logger("upkeep")


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look at a campaign.

    ``stopped``, ``completed`` or ``schedule_ended``: this look did that. ``to_verify``: it may complete once its
    counters are verified. ``being_targeted``, ``to_count``: nothing else is done before. ``left_behind``: a host's
    devices are not taken over yet, so nothing is sent. ``unplaced``: some devices have no place yet. ``more``: there
    may be more devices that are overdue or left by a host. ``idle_seconds``: seconds for which there is nothing to
    send.
    """

    stopped: Stopped | None = None
    completed: bool = False
    schedule_ended: bool = False
    to_verify: Outlook | None = None
    being_targeted: bool = False
    to_count: bool = False
    left_behind: bool = False
    unplaced: bool = False
    more: bool = False
    idle_seconds: float = 0.0


class Upkeep:
    """Looks after one campaign at a time. Any number of workers may do this in parallel."""

    def __init__(self, pool: Pool, settings: Settings, *, max_adopted_per_look: int = MAX_ADOPTED_PER_LOOK) -> None:
        self._max_adopted_per_look = max_adopted_per_look
        self._pool = pool
        self._settings = settings
        self._counters = Counters(pool, settings)
        self._timeline = Timeline(settings)
        self._from_versions = FromVersions(pool)

    async def look_after(self, ref: CampaignRef) -> Look:
        """Do what the campaign needs now, if anything.

        Before a wave is concluded, the counters are verified, after its last device became terminal. This reads every
        row, and does not hold the campaign's lock meanwhile, since counters change together with rows.
        """
        look = await self._look(ref)
        if look.to_count:
            look = await self._look(ref, devices=await self._counters.count(ref))
        if look.to_verify and await self._counters.verify(ref):
            look = await self._look(ref, verified=look.to_verify)
        await self._timeline.draw(self._pool, ref)
        await self._from_versions.note(ref, being_targeted=look.being_targeted)
        return look

    async def _look(self, ref: CampaignRef, *, verified: Outlook | None = None, devices: int | None = None) -> Look:
        """Look in one transaction under the campaign's lock. A wave is concluded only if counters are ``verified``."""
        look = Look()
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            locked = await lock_campaign(connection, ref, self._settings, devices=devices)
            campaign = locked.row
            if campaign.status is CampaignStatus.ABORTED:
                look = await self._wind_down(connection, locked, verified)
            elif campaign.being_targeted:
                over = campaign.status is not CampaignStatus.CREATED and await schedule.end_if_over(connection, locked)
                look = Look(schedule_ended=over, being_targeted=not over)
            elif campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
                look = await self._go_on(connection, locked, verified, counted=devices is not None)
            elif ref.status is CampaignStatus.COMPLETED:  # a host's SQL has ended it, so it has not been wound down
                look = await self._finish_winding_down(connection, locked, verified)
            await self._timeline.note(connection, locked, now=bool(look.completed or look.stopped))
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if look.stopped:
            look.stopped.announce()
        if look.schedule_ended:
            _log.info("ota_campaign_schedule_ended", campaign_id=campaign.id, tenant_id=campaign.tenant_id)
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
            return Look(await stop.hold(connection, campaign.tenant_id, stop.counters_of(campaign), locked.unreadable))
        if await schedule.end_if_over(connection, locked):
            return Look(schedule_ended=True)
        noted = await deadlines.note_activity(connection, locked, self._settings)
        if campaign.status is CampaignStatus.RUNNING:
            await note_brakes(connection, locked)
        left = await self._take_over(connection, campaign, policy, counted=counted)
        if left or not locked.waves:
            return left or Look(to_count=True)
        document, progress = policy.document, policy.progress_timeout
        if document is not None and campaign.must_be_placed and not has_waves_sent_to(campaign, document):
            counters, reason = stop.counters_of(campaign), other_waves(campaign)
            return Look(await stop.hold(connection, campaign.tenant_id, counters, reason, hint=OTHER_WAVES_HINT))
        if document is not None and await begin_if_needed(connection, campaign, document, progress_timeout=progress):
            return Look(being_targeted=True)
        unplaced = document is not None and any(await placing_progress.unplaced(connection, campaign))
        judged = await self._judge_deadlines(connection, locked, noted)
        return replace(judged or await self._pass_gate(connection, locked, verified), unplaced=unplaced)

    async def _judge_deadlines(self, connection: Connection, locked: CampaignUnderPolicy, noted: Noted) -> Look | None:
        """Let the clocks of devices of closed segments stand, and judge those that are overdue. None: the look goes on.

        While the campaign is suspended, the clocks of all devices stand already.
        """
        campaign, policy = locked.row, locked.policy
        closed = await closed_segments(connection, locked)
        suspended = campaign.activity.active_for is None and not noted.suspended_for
        if policy.document is not None and not suspended:
            more = await standing.let_stand(connection, campaign, policy, closed, noted)
            if more:
                return Look(more=True)
        if not noted.may_judge:
            return None
        swept = await deadlines.sweep(connection, campaign, policy, sends_on=True, closed=closed)
        if swept.stopped or swept.any_failed or swept.more:
            return Look(swept.stopped, more=swept.more)  # the next look judges the rest on the new counters
        return None

    async def _take_over(
        self, connection: Connection, campaign: Campaign, policy: Policy, *, counted: bool
    ) -> Look | None:
        """Take over rows that a host left in progress, then count and judge the campaign. None: all this is done.

        ``counted``: the campaign's rows have just been counted.
        """
        taken = await take_over(
            connection, campaign, progress_timeout=policy.progress_timeout, limit=self._max_adopted_per_look
        )
        if taken.more:
            return Look(left_behind=True)
        if taken.any_moved or not campaign.counted:
            # The result has idle time, since another worker may count the rows too.
            return Look(idle_seconds=SOON_SECONDS) if counted else Look(to_count=True)
        if counted:
            stopped = await stop.judge(connection, campaign.tenant_id, stop.counters_of(campaign))
            return Look(stopped) if stopped else None
        return None

    async def _pass_gate(self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None) -> Look:
        campaign, wave, document = locked.row, locked.wave, locked.policy.document
        outlook = await counters.outlook(connection, campaign)
        if document is not None and not outlook.finished:
            return await self._judge_wave(connection, locked, document, outlook, verified)
        if document is not None and await waves.waits_for_operator(connection, locked, document):
            return Look()
        left = Remaining(waiting=outlook.waiting, unfinished=outlook.open)
        finished = admit(locked.policy, locked.facts(self._settings, heard=True, remaining=left)).wave_finished
        last = wave.number == locked.waves[-1].number
        if not outlook.any or not finished or (last and not outlook.finished):
            return Look(idle_seconds=0.0 if outlook.waiting else max(0.0, outlook.due_in or 0.0))
        if outlook != verified:
            return Look(to_verify=outlook)
        return await self._conclude(connection, locked, outlook, wave.number)

    async def _judge_wave(
        self,
        connection: Connection,
        locked: CampaignUnderPolicy,
        document: PolicyDocument,
        outlook: Outlook,
        verified: Outlook | None,
    ) -> Look:
        judged = await waves.judge(connection, locked, document, verified=outlook == verified)
        if judged.to_verify:
            return Look(to_verify=outlook)
        if judged.stopped or judged.moved:
            return Look(judged.stopped)
        return Look(idle_seconds=0.0 if outlook.waiting else max(0.0, outlook.due_in or 0.0))

    async def _conclude(self, connection: Connection, locked: CampaignUnderPolicy, outlook: Outlook, wave: int) -> Look:
        """Stop or complete the campaign, or open its next wave. Its wave has ended, and its counters are verified."""
        campaign = locked.row
        stopped = await stop.judge(
            connection, campaign.tenant_id, stop.counters_of(campaign), at_gate=not outlook.finished
        )
        if stopped:
            return Look(stopped)
        if outlook.finished:
            if locked.policy.document is not None:
                judged = await waves.judge(connection, locked, locked.policy.document, verified=True)
                if judged.stopped or judged.moved or judged.failed:  # after an opened gate, the next look finishes it
                    return Look(judged.stopped)
            await campaigns.move(connection, campaign, Action.FINISH, tenant_id=campaign.tenant_id, actor=ENGINE)
            return Look(completed=True)
        if campaign.status is CampaignStatus.RUNNING and await campaigns.open_wave(connection, campaign, wave + 1):
            await campaigns.pass_gate(connection, campaign, wave)
            names = wave_name(wave + 1, locked.waves), wave_name(wave, locked.waves)
            opened = WaveOpened(wave + 1, campaign.succeeded, campaign.failed, *names)
            await events.append(connection, campaign.tenant_id, campaign.id, opened, actor=ENGINE)
            _log.info("ota_wave_opened", campaign_id=campaign.id, tenant_id=campaign.tenant_id, wave=wave + 1)
        return Look()

    async def _wind_down(self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None) -> Look:
        """Judge the deadlines of a campaign that has ended. Devices in progress may finish until their deadline.

        ``more`` in the result: there may be more devices whose deadline has passed.
        """
        # Nothing more is sent, so an unreadable policy does not pause the campaign.
        campaign, policy = locked.row, locked.policy
        noted = await deadlines.note_activity(connection, locked, self._settings)
        taken = await take_over(
            connection, campaign, progress_timeout=policy.progress_timeout, limit=self._max_adopted_per_look
        )
        more = taken.more
        if campaign.policy_revision is not None:  # all clocks run now
            more = await standing.let_stand(connection, campaign, policy, (), noted) or more
        swept = await deadlines.sweep(connection, campaign, policy, sends_on=False, deadlines_run=noted.may_judge)
        if more or swept.more:
            return Look(more=True)
        return await self._finish_winding_down(connection, locked, verified)

    async def _finish_winding_down(
        self, connection: Connection, locked: CampaignUnderPolicy, verified: Outlook | None
    ) -> Look:
        """Mark an ended campaign as wound down. Its counters are verified, since a host's SQL may have changed rows."""
        campaign = locked.row
        outlook = await counters.outlook(connection, campaign)
        if campaign.status is CampaignStatus.ABORTED and (outlook.waiting or outlook.open):
            return Look()
        if outlook != verified:
            return Look(to_verify=outlook)
        await campaigns.mark_wound_down(connection, campaign)
        await self._timeline.note(connection, locked, now=True)
        return Look()
