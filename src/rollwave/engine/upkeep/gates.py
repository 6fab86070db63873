"""What moves a campaign on: gates between waves, completion, winding down after a stop, counters kept honest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.campaign import Action, CampaignRef, CampaignStatus
from rollwave.domain.events import ENGINE, WaveOpened
from rollwave.domain.policy.document import Rules
from rollwave.domain.policy.waves import Gate, Wave, gate
from rollwave.domain.suspension import Change
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.rules import default_rules, read_rules, read_waves
from rollwave.engine.stop import MAX_SKIPPED_PER_BATCH, SKIPPED_BECAUSE, Stopped
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.engine.upkeep import adoption, deadlines
from rollwave.engine.upkeep.counters import Verifier
from rollwave.errors import InvalidInput
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, events, executions, listeners, waves
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Outlook
from rollwave.store.listeners import Listening

_log = get_logger("conductor")

CATCH_UP_SECONDS = 10.0
"""Seconds in which a new listener is sure to have taken in what was queued for it."""

LONGEST_REFUSAL_SECONDS = 600.0
"""Seconds that a device which the broker refuses waits, at most: the statement ``release`` says so."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one look at a campaign came to: it was ``stopped`` or ``completed``, or may be once it is verified.

    Or it is ``being_targeted``, or ``to_count``: nothing is done until it is. Nor is anything sent while devices may be
    ``left_behind`` by a host that were not taken over yet. ``more``: devices may be overdue, or left by a host, that
    were not looked at yet. ``idle``: for so many seconds there is nothing to send.
    """

    stopped: Stopped | None = None
    completed: bool = False
    to_verify: Outlook | None = None
    being_targeted: bool = False
    to_count: bool = False
    left_behind: bool = False
    more: bool = False
    idle: float = 0.0


class Conductor:
    """Looks after one campaign at a time; any number of workers may do so at once."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._verifier = Verifier(pool)

    async def conduct(self, ref: CampaignRef) -> Step:
        """Do what the campaign needs now, if anything.

        A wave is concluded on counters that were verified after its last device was seen to be over. That reads every
        row, and for so long the campaign's lock is not held: in between, counters move with the rows.
        """
        step = await self._look_after(ref)
        if step.to_count:
            step = await self._look_after(ref, devices=await self._verifier.count(ref))
        if step.to_verify and await self._verifier.verify(ref):
            step = await self._look_after(ref, verified=step.to_verify)
        return step

    async def _look_after(
        self, ref: CampaignRef, *, verified: Outlook | None = None, devices: int | None = None
    ) -> Step:
        """One transaction under the campaign's lock. What it finds to conclude, it does once that is ``verified``."""
        step = Step()
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            if campaign.status is CampaignStatus.ABORTED:
                step = await self._wind_down(connection, campaign, verified)
            elif campaign.being_targeted:
                step = Step(being_targeted=True)
            elif campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
                step = await self._go_on(connection, campaign, verified, devices)
            elif ref.status is CampaignStatus.COMPLETED:  # by a host's SQL, and so nobody has settled it
                step = await self._settle(connection, campaign, verified)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if step.stopped:
            step.stopped.announce()
        if step.completed:
            _log.info(
                "ota_campaign_completed",
                campaign_id=campaign.id,
                tenant_id=campaign.tenant_id,
                succeeded=campaign.succeeded,
                failed=campaign.failed,
            )
        return step

    async def _go_on(
        self, connection: Connection, campaign: Campaign, verified: Outlook | None, devices: int | None
    ) -> Step:
        try:
            rules = read_rules(campaign, self._settings)
            planned = await read_waves(connection, campaign, devices=devices)
        except InvalidInput as error:
            return Step(
                await stop.pause_unreadable(connection, campaign.tenant_id, stop.standing_of(campaign), str(error))
            )
        deadlines_run = await self._deadlines_run(connection, campaign, rules)
        left = await self._take_over(connection, campaign, rules, counted=devices is not None)
        if left or not planned:
            return left or Step(to_count=True)
        if deadlines_run:
            failed_some, more, stopped = await deadlines.sweep(connection, campaign, rules, sends_on=True)
            if stopped or failed_some or more:
                return Step(stopped, more=more)  # the rest is judged on the new counters, next time
        return await self._pass_gate(connection, campaign, planned, verified)

    async def _take_over(
        self, connection: Connection, campaign: Campaign, rules: Rules, *, counted: bool
    ) -> Step | None:
        """What a host left in progress is taken over, and the campaign counted and judged. None: that is done.

        ``counted``: its rows have just been counted.
        """
        more, ended = await adoption.take_over(connection, campaign, patience=rules.patience)
        if more:
            return Step(left_behind=True)
        if ended or not campaign.counted:
            return Step(idle=SOON_SECONDS) if counted else Step(to_count=True)  # idle: another worker counts them too
        if counted:
            stopped = await stop.judge(connection, campaign.tenant_id, stop.standing_of(campaign))
            return Step(stopped) if stopped else None
        return None

    async def _pass_gate(
        self, connection: Connection, campaign: Campaign, planned: Sequence[Wave], verified: Outlook | None
    ) -> Step:
        outlook = await executions.outlook(connection, campaign)
        wave = planned[min(campaign.wave, len(planned) - 1)]
        last = wave.number == planned[-1].number
        passed = gate(wave, sent=campaign.sent, unfinished=outlook.open, more_to_send=outlook.waiting)
        if not outlook.any or passed is Gate.SHUT or (last and not outlook.finished):
            return Step(idle=0.0 if outlook.waiting else max(0.0, outlook.due_in or 0.0))
        if outlook != verified:
            return Step(to_verify=outlook)
        return await self._conclude(connection, campaign, outlook, wave.number)

    async def _deadlines_run(self, connection: Connection, campaign: Campaign, rules: Rules) -> bool:
        """Whether devices may be judged by their deadlines now; writes down whether the campaign is active.

        Deadlines stand still while a campaign is suspended. One that becomes active is judged at the next look.
        """
        number = self._settings.listener_slots
        heard, listening = await listeners.heard(connection, number), await listeners.listening(connection, number)
        active = heard and campaign.status is not CampaignStatus.PAUSED
        heard_for = listening.without_gap if listening else 0.0
        change = campaign.activity.change(active=active, heard_for=heard_for, tick=self._settings.tick_interval)
        await campaigns.note_activity(connection, campaign, change, longest=rules.longest_deadline)
        return active and change is not Change.ACTIVATE and self._have_been_heard(listening, rules)

    def _have_been_heard(self, heard: Listening | None, rules: Rules) -> bool:
        """Whether a device that is alive would have been heard by now: deadlines run only while somebody listens.

        So neither an outage of broker or database, nor the time it takes to catch up with the queue after one, nor a
        change of listeners, fails a device.
        """
        longest = rules.longest_silence
        return heard is not None and heard.without_gap >= longest and heard.subscribed >= min(longest, CATCH_UP_SECONDS)

    async def _conclude(self, connection: Connection, campaign: Campaign, outlook: Outlook, wave: int) -> Step:
        """The wave is over, and the counters are right: stop, complete, or open the next one."""
        stopped = await stop.judge(
            connection, campaign.tenant_id, stop.standing_of(campaign), at_gate=not outlook.finished
        )
        if stopped:
            return Step(stopped)
        if outlook.finished:
            await campaigns.move(connection, campaign, Action.FINISH, tenant_id=campaign.tenant_id, actor=ENGINE)
            return Step(completed=True)
        if campaign.status is CampaignStatus.RUNNING and await campaigns.open_wave(connection, campaign, wave + 1):
            await waves.pass_gate(connection, campaign, wave)
            opened = WaveOpened(wave + 1, campaign.succeeded, campaign.failed)
            await events.append(connection, campaign.tenant_id, campaign.id, opened, actor=ENGINE)
            _log.info("ota_wave_opened", campaign_id=campaign.id, tenant_id=campaign.tenant_id, wave=wave + 1)
        return Step()

    async def reconcile(self, ref: CampaignRef) -> float:
        """Every now and then, look whether counters and rows agree; if not, set them right, and judge anew.

        Returns the seconds until it is time again.
        """
        every = self._settings.reconcile_interval
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            # A negative age is from before the database's clock was set back.
            if 0 <= campaign.reconciled_age < every:
                return every - campaign.reconciled_age
            await campaigns.date_reconciliation(connection, campaign)
            rules = self._rules(campaign)
            longest = max(self._settings.lease, LONGEST_REFUSAL_SECONDS, rules.longest_wait)
            await executions.bring_forward(connection, campaign, longest=1.2 * longest, patience=rules.patience)
        await self._verifier.verify(ref)
        return every

    async def skip_rest(self, ref: CampaignRef) -> bool:
        """Skip what an aborted campaign never sent to, for a turn: the stop itself was committed before.

        Returns whether that was all.
        """
        turn_ends = time.monotonic() + TURN_SECONDS
        while time.monotonic() < turn_ends:
            async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
                skipped = await executions.skip_unsent(
                    connection, ref.tenant_id, ref.campaign_id, limit=MAX_SKIPPED_PER_BATCH, reason=SKIPPED_BECAUSE
                )
                await reach(Failpoint.CAMPAIGN_WRITTEN)
            if skipped < MAX_SKIPPED_PER_BATCH:
                return True
        return False

    def _rules(self, campaign: Campaign) -> Rules:
        try:
            return read_rules(campaign, self._settings)
        except InvalidInput:
            return default_rules(self._settings)

    async def _wind_down(self, connection: Connection, campaign: Campaign, verified: Outlook | None) -> Step:
        """Devices still in progress may finish until their deadline; then the campaign is settled.

        There may be ``more`` whose deadline has passed.
        """
        rules = self._rules(campaign)  # nothing is sent any more, so there is nothing to hold
        deadlines_run = await self._deadlines_run(connection, campaign, rules)
        more, _ = await adoption.take_over(connection, campaign, patience=rules.patience)
        if deadlines_run:
            _, overdue, _ = await deadlines.sweep(connection, campaign, rules, sends_on=False)
            more = more or overdue
        if more:
            return Step(more=True)
        return await self._settle(connection, campaign, verified)

    async def _settle(self, connection: Connection, campaign: Campaign, verified: Outlook | None) -> Step:
        """Settle a campaign that is over, on verified counters: a host's SQL may have ended it, and moved its rows."""
        outlook = await executions.outlook(connection, campaign)
        if campaign.status is CampaignStatus.ABORTED and (outlook.waiting or outlook.open):
            return Step()
        if outlook != verified:
            return Step(to_verify=outlook)
        await campaigns.mark_wound_down(connection, campaign)
        return Step()
