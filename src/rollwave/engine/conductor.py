"""What moves a campaign on: gates between waves, completion, winding down after a stop, counters kept honest."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rollwave.domain.campaign import Action, CampaignStatus
from rollwave.domain.rules import Rules
from rollwave.domain.suspension import Change
from rollwave.domain.wave import Gate, gate
from rollwave.engine import guard, sweeper
from rollwave.engine.agenda import TURN
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.guard import SKIP_BATCH, SKIPPED_BECAUSE, Stopped
from rollwave.engine.rules import count_devices, default_rules, read_rules, read_waves
from rollwave.errors import InvalidInput
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, history, slots, waves
from rollwave.store.campaigns import SCAN_TIMEOUT, Campaign, Due
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Outlook
from rollwave.store.slots import Listening

_log = get_logger("conductor")

CATCH_UP = 10.0
"""Seconds in which a new listener is sure to have taken in what was queued for it."""

LONGEST_REFUSAL = 600.0
"""Seconds that a device which the broker refuses waits, at most: the statement ``release`` says so."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one look at a campaign came to: it was ``stopped`` or ``completed``, or may be once it is verified.

    Or it is ``being_targeted``, or ``to_plan``: nothing is done until it is. ``more``: devices may
    be overdue that were not looked at yet. ``idle``: for so many seconds there is nothing to send.
    """

    stopped: Stopped | None = None
    completed: bool = False
    to_verify: Outlook | None = None
    being_targeted: bool = False
    to_plan: bool = False
    more: bool = False
    idle: float = 0.0


class Conductor:
    """Looks after one campaign at a time; any number of workers may do so at once."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings

    async def conduct(self, due: Due) -> Step:
        """Do what the campaign needs now, if anything.

        A wave is concluded on counters that were verified after its last device was seen to be over. That reads every
        row, and for so long the campaign's lock is not held: in between, counters move with the rows.
        """
        step = await self._look_after(due)
        if step.to_plan:
            step = await self._look_after(due, devices=await count_devices(self._pool, due))
        if step.to_verify and await self._verify(due):
            step = await self._look_after(due, verified=step.to_verify)
        return step

    async def _look_after(self, due: Due, *, verified: Outlook | None = None, devices: int | None = None) -> Step:
        """One transaction under the campaign's lock. What it finds to conclude, it does once that is ``verified``."""
        step = Step()
        async with tenant_transaction(self._pool, due.tenant_id, queues=True) as connection:
            campaign = await campaigns.lock(connection, due.tenant_id, due.campaign_id)
            if campaign.status is CampaignStatus.ABORTED:
                step = Step(more=await self._wind_down(connection, campaign))
            elif campaign.being_targeted:
                step = Step(being_targeted=True)
            elif campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
                step = await self._go_on(connection, campaign, verified, devices)
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
            return Step(await guard.hold(connection, campaign.tenant_id, guard.standing_of(campaign), str(error)))
        if not planned:
            return Step(to_plan=True)
        if await self._deadlines_run(connection, campaign, rules):
            failed_some, more, stopped = await sweeper.sweep(connection, campaign, rules, sends_on=True)
            if stopped or failed_some or more:
                return Step(stopped, more=more)  # the rest is judged on the new counters, next time
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
        heard, listening = await slots.heard(connection, number), await slots.listening(connection, number)
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
        return heard is not None and heard.without_gap >= longest and heard.subscribed >= min(longest, CATCH_UP)

    async def _conclude(self, connection: Connection, campaign: Campaign, outlook: Outlook, wave: int) -> Step:
        """The wave is over, and the counters are right: stop, complete, or open the next one."""
        stopped = await guard.judge(
            connection, campaign.tenant_id, guard.standing_of(campaign), at_gate=not outlook.finished
        )
        if stopped:
            return Step(stopped)
        if outlook.finished:
            await campaigns.move(
                connection, campaign, Action.FINISH, tenant_id=campaign.tenant_id, actor=history.ENGINE
            )
            return Step(completed=True)
        if campaign.status is CampaignStatus.RUNNING and await campaigns.open_wave(connection, campaign, wave + 1):
            await waves.pass_gate(connection, campaign, wave)
            await history.append(
                connection,
                campaign.tenant_id,
                campaign.id,
                "wave_opened",
                actor=history.ENGINE,
                detail={"wave": wave + 1, "succeeded": campaign.succeeded, "failed": campaign.failed},
            )
            _log.info("ota_wave_opened", campaign_id=campaign.id, tenant_id=campaign.tenant_id, wave=wave + 1)
        return Step()

    async def reconcile(self, due: Due) -> float:
        """Every now and then, look whether counters and rows agree; if not, set them right, and judge anew.

        Returns the seconds until it is time again.
        """
        every = self._settings.reconcile_interval
        async with tenant_transaction(self._pool, due.tenant_id, queues=True) as connection:
            campaign = await campaigns.get(connection, due.tenant_id, due.campaign_id)
            # A negative age is from before the database's clock was set back.
            if 0 <= campaign.reconciled_age < every:
                return every - campaign.reconciled_age
            await campaigns.date_reconciliation(connection, campaign)
            rules = self._rules(campaign)
            longest = max(self._settings.lease, LONGEST_REFUSAL, rules.longest_wait)
            await executions.bring_forward(connection, campaign, longest=1.2 * longest, patience=rules.patience)
        await self._verify(due)
        return every

    async def _verify(self, due: Due) -> bool:
        """Compare counters and rows; repair what somebody else's SQL caused. False: another worker is at it.

        Compared without the campaign's lock, which is taken only for what there is to repair.
        """
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            await campaigns.begin_counting(connection, due.tenant_id, due.campaign_id)
        async with tenant_transaction(self._pool, due.tenant_id, timeout=SCAN_TIMEOUT) as connection:
            found = await campaigns.compare(connection, due.tenant_id, due.campaign_id)
        if found.agree:
            return True
        stopped: Stopped | None = None
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.lock(connection, due.tenant_id, due.campaign_id)
            repaired = await campaigns.repair(connection, campaign, found)
            if repaired and found.drifted:
                stopped = await self._tell(connection, campaign)
        if stopped:
            stopped.announce()
        return repaired

    async def _tell(self, connection: Connection, was: Campaign) -> Stopped | None:
        """Have it in log and history that counters were repaired, and judge on those."""
        campaign = await campaigns.get(connection, was.tenant_id, was.id)
        _log.warning(
            "ota_counters_repaired",
            campaign_id=campaign.id,
            tenant_id=campaign.tenant_id,
            was=(was.succeeded, was.failed, was.sent),
            counted=(campaign.succeeded, campaign.failed, campaign.sent),
        )
        await history.append(
            connection,
            campaign.tenant_id,
            campaign.id,
            "counters_repaired",
            actor=history.ENGINE,
            detail={"succeeded": campaign.succeeded, "failed": campaign.failed},
        )
        return await guard.judge(connection, campaign.tenant_id, guard.standing_of(campaign))

    async def skip_rest(self, due: Due) -> bool:
        """Skip what an aborted campaign never sent to, for a turn: the stop itself was committed before.

        Returns whether that was all.
        """
        turn_ends = time.monotonic() + TURN
        while time.monotonic() < turn_ends:
            async with tenant_transaction(self._pool, due.tenant_id, queues=True) as connection:
                skipped = await executions.skip_unsent(
                    connection, due.tenant_id, due.campaign_id, limit=SKIP_BATCH, reason=SKIPPED_BECAUSE
                )
                await reach(Failpoint.CAMPAIGN_WRITTEN)
            if skipped < SKIP_BATCH:
                return True
        return False

    def _rules(self, campaign: Campaign) -> Rules:
        try:
            return read_rules(campaign, self._settings)
        except InvalidInput:
            return default_rules(self._settings)

    async def _wind_down(self, connection: Connection, campaign: Campaign) -> bool:
        """Devices still in progress may finish until their deadline; then the campaign is settled.

        Returns whether there may be more whose deadline has passed.
        """
        more = False
        rules = self._rules(campaign)  # nothing is sent any more, so there is nothing to hold
        if await self._deadlines_run(connection, campaign, rules):
            _, more, _ = await sweeper.sweep(connection, campaign, rules, sends_on=False)
        outlook = await executions.outlook(connection, campaign)
        if not outlook.waiting and not outlook.open:
            await campaigns.settle(connection, campaign)
        return more
