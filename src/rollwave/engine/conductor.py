"""What moves a campaign on: gates between waves, completion, winding down after a stop, counters kept honest."""

from __future__ import annotations

from rollwave.domain.campaign import Action, CampaignStatus
from rollwave.domain.rules import Rules
from rollwave.domain.wave import Gate, gate
from rollwave.engine import guard, sweeper
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.guard import SKIP_AT_ONCE, SKIPPED_BECAUSE, Stopped
from rollwave.engine.rules import default_rules, read_rules, read_waves
from rollwave.errors import InvalidInput
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, history, slots, waves
from rollwave.store.campaigns import Campaign, Due
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Outlook

_log = get_logger("conductor")

CATCH_UP = 10.0
"""Seconds in which a new listener is sure to have taken in what was queued for it."""

LONGEST_REFUSAL = 600.0
"""Seconds that a device which the broker refuses waits, at most: the statement ``release`` says so."""


class Conductor:
    """Looks after one campaign at a time; any number of workers may do so at once."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings

    async def conduct(self, due: Due) -> None:
        """Do what the campaign needs now, if anything."""
        stopped: Stopped | None = None
        done: Campaign | None = None
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.lock(connection, due.tenant_id, due.campaign_id)
            if campaign.status is CampaignStatus.ABORTED:
                await self._wind_down(connection, campaign)
            elif campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
                stopped, done = await self._go_on(connection, campaign)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if stopped:
            stopped.announce()
        if done:
            _log.info(
                "ota_campaign_completed",
                campaign_id=done.id,
                tenant_id=done.tenant_id,
                succeeded=done.succeeded,
                failed=done.failed,
            )

    async def _go_on(self, connection: Connection, campaign: Campaign) -> tuple[Stopped | None, Campaign | None]:
        try:
            rules = read_rules(campaign, self._settings)
            planned = await read_waves(connection, campaign)
        except InvalidInput as error:
            return await guard.hold(connection, campaign.tenant_id, guard.standing_of(campaign), str(error)), None
        if await self._heard(connection, rules):
            failed_some, stopped = await sweeper.sweep(connection, campaign, rules, sends_on=True)
            if stopped or failed_some:
                return stopped, None  # the rest is judged on the new counters, next time
        outlook = await executions.outlook(connection, campaign)
        wave = planned[min(campaign.wave, len(planned) - 1)]
        last = wave.number == planned[-1].number
        passed = gate(wave, sent=campaign.sent, unfinished=outlook.open, more_to_send=outlook.waiting)
        if not outlook.any or passed is Gate.SHUT or (last and not outlook.finished):
            return None, None
        return await self._conclude(connection, campaign, outlook, wave.number)

    async def _heard(self, connection: Connection, rules: Rules) -> bool:
        """Whether a device that is alive would have been heard by now: deadlines run only while somebody listens.

        So neither an outage of broker or database, nor the time it takes to catch up with the queue after one, nor a
        change of listeners, fails a device.
        """
        heard = await slots.listening(connection, self._settings.listener_slots)
        longest = max(rules.patience, rules.answer_within)
        return heard is not None and heard.without_gap >= longest and heard.subscribed >= min(longest, CATCH_UP)

    async def _conclude(
        self, connection: Connection, campaign: Campaign, outlook: Outlook, wave: int
    ) -> tuple[Stopped | None, Campaign | None]:
        """The wave is over: on counters that were verified, stop, complete, or open the next one."""
        campaign = await self._verify(connection, campaign)
        stopped = await guard.judge(
            connection, campaign.tenant_id, guard.standing_of(campaign), at_gate=not outlook.finished
        )
        if stopped:
            return stopped, None
        if outlook.finished:
            await campaigns.move(
                connection, campaign, Action.FINISH, tenant_id=campaign.tenant_id, actor=history.ENGINE
            )
            return None, campaign
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
        return None, None

    async def _verify(self, connection: Connection, campaign: Campaign) -> Campaign:
        """Compare counters and rows under the campaign's lock; repair what somebody else's SQL caused."""
        counted = await campaigns.recount(connection, campaign)
        if counted == (campaign.succeeded, campaign.failed, campaign.sent):
            return campaign
        _log.warning(
            "ota_counters_repaired",
            campaign_id=campaign.id,
            tenant_id=campaign.tenant_id,
            was=(campaign.succeeded, campaign.failed, campaign.sent),
            counted=counted,
        )
        await campaigns.repair(connection, campaign, counted)
        await history.append(
            connection,
            campaign.tenant_id,
            campaign.id,
            "counters_repaired",
            actor=history.ENGINE,
            detail={"succeeded": counted[0], "failed": counted[1]},
        )
        return await campaigns.get(connection, campaign.tenant_id, campaign.id)

    async def reconcile(self, due: Due) -> None:
        """Every half a minute, look without a lock whether counters and rows agree; if not, set them right with it."""
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.get(connection, due.tenant_id, due.campaign_id)
            # A negative age is from before the database's clock was set back.
            if 0 <= campaign.reconciled_age < self._settings.reconcile_interval:
                return
            await campaigns.date_reconciliation(connection, campaign)
            rules = self._rules(campaign)
            longest = max(self._settings.lease, LONGEST_REFUSAL, rules.longest_wait)
            await executions.bring_forward(connection, campaign, longest=1.2 * longest, patience=rules.patience)
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            if not await campaigns.has_drifted(connection, campaign):
                return
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.lock(connection, due.tenant_id, due.campaign_id)
            campaign = await self._verify(connection, campaign)
            stopped = await guard.judge(connection, campaign.tenant_id, guard.standing_of(campaign))
        if stopped:
            stopped.announce()

    async def skip_rest(self, due: Due) -> None:
        """Skip what an aborted campaign never sent to, in batches: the stop itself was committed before."""
        skipped = SKIP_AT_ONCE
        while skipped >= SKIP_AT_ONCE:
            async with tenant_transaction(self._pool, due.tenant_id) as connection:
                skipped = await executions.skip_unsent(
                    connection, due.tenant_id, due.campaign_id, limit=SKIP_AT_ONCE, reason=SKIPPED_BECAUSE
                )
                await reach(Failpoint.CAMPAIGN_WRITTEN)

    def _rules(self, campaign: Campaign) -> Rules:
        try:
            return read_rules(campaign, self._settings)
        except InvalidInput:
            return default_rules(self._settings)

    async def _wind_down(self, connection: Connection, campaign: Campaign) -> None:
        """Devices still in progress may finish until their deadline; then the campaign is settled."""
        rules = self._rules(campaign)  # nothing is sent any more, so there is nothing to hold
        if await self._heard(connection, rules):
            await sweeper.sweep(connection, campaign, rules, sends_on=False)
        outlook = await executions.outlook(connection, campaign)
        if not outlook.waiting and not outlook.open:
            await campaigns.settle(connection, campaign)
