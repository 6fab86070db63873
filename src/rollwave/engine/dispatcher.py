"""Claim, commit, publish, mark.

A claim is a short transaction under the campaign's lock. No connection is held while the broker is spoken to.
A worker that dies in between leaves a lease that runs out, and the device is sent the same attempt again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.pacing import Allowance, allowance
from rollwave.domain.rules import Rules
from rollwave.domain.wave import Wave
from rollwave.engine import guard
from rollwave.engine.conveyor import Conveyor
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.publisher import Publisher
from rollwave.engine.rules import read_rules, read_waves
from rollwave.engine.sender import Batch, Sender
from rollwave.errors import BrokerUnavailable, InvalidInput
from rollwave.log import get_logger
from rollwave.mqtt.payload import encode_command
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, slots
from rollwave.store.campaigns import Campaign, Due
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Claim, Times

_log = get_logger("dispatcher")


class Dispatcher:
    """Sends one campaign's commands, as far as its pace, waves and caps allow now."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._publisher = publisher
        self._settings = settings
        self._sender = Sender(pool, publisher, settings)
        self._stopping = stopping

    async def dispatch(self, due: Due) -> float | None:
        """Send what may go now. Returns the seconds until the pace allows more; None when it is not the pace.

        One batch is claimed while the one before it is published, and the one before that is marked. A broker that is
        away claims nothing.
        """
        try:
            await self._publisher.session()
        except BrokerUnavailable:
            return None
        batch = Batch()
        conveyor = Conveyor(self._sender, due)
        try:
            while not self._stopping():
                batch = await self._claim(due)
                taken = await conveyor.answered()
                if taken is not None and batch.commands and not await self._still_runs(due):
                    await self._sender.give_back(due, batch)
                    break
                if batch.commands:
                    conveyor.start(batch)
                if taken == 0 or not (batch.commands or batch.skipped):
                    break
        finally:
            # Also when claiming has failed: what is on its way is marked before anybody claims it again.
            await conveyor.finish()
        if conveyor.taken:
            await self._announce(due, conveyor.taken)
        return batch.retry_in

    async def _still_runs(self, due: Due) -> bool:
        """Whether what waited may go: stopped since, the campaign had the batch before it out, and that is all."""
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.get(connection, due.tenant_id, due.campaign_id)
        return campaign.status is CampaignStatus.RUNNING

    async def _announce(self, due: Due, sent: int) -> None:
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            left = await executions.count_pending(connection, due.tenant_id, due.campaign_id)
        _log.info(
            "ota_devices_dispatched",
            campaign_id=due.campaign_id,
            tenant_id=due.tenant_id,
            dispatched=sent,
            remaining_pending=left,
        )

    async def _claim(self, due: Due) -> Batch:
        lease_ends = time.monotonic() + self._settings.lease
        stopped = None
        batch = Batch()
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.lock(connection, due.tenant_id, due.campaign_id)
            if campaign.status is not CampaignStatus.RUNNING:
                return batch
            try:
                rules = read_rules(campaign, self._settings)
                body = _command(campaign)
                waves = await read_waves(connection, campaign)
            except InvalidInput as error:
                stopped = await guard.hold(connection, campaign.tenant_id, guard.standing_of(campaign), str(error))
            else:
                granted = await self._allowance(connection, campaign, rules, waves[min(campaign.wave, len(waves) - 1)])
                claim = await self._take(connection, campaign, granted, body, rules.device_timeout)
                batch = Batch(
                    claim.commands,
                    body.encode(),
                    _times(rules),
                    lease_ends,
                    claim.skipped,
                    granted.retry_in or None,
                )
                await reach(Failpoint.CLAIM_WRITTEN)
        if stopped:
            stopped.announce()
        if batch.commands:
            await reach(Failpoint.CLAIMED)
        return batch

    async def _allowance(self, connection: Connection, campaign: Campaign, rules: Rules, wave: Wave) -> Allowance:
        flying = 0
        if rules.max_in_flight is not None:
            flying = await executions.in_flight(connection, campaign, up_to=rules.max_in_flight)
        pace = campaign.pace(tick=self._settings.tick_interval, in_flight=flying)
        left = self._settings.claim_batch if wave.up_to is None else wave.up_to - campaign.sent
        return allowance(pace, wave_left=left)

    async def _take(
        self, connection: Connection, campaign: Campaign, granted: Allowance, body: str, in_all: float
    ) -> Claim:
        if not granted.tokens or await slots.awaited(connection, self._settings.listener_slots):
            return Claim((), 0, 0)
        claim = await executions.claim(
            connection,
            campaign,
            tokens=min(granted.tokens, self._settings.claim_batch),
            fresh=min(granted.fresh, self._settings.claim_batch),
            lease=self._settings.lease,
            in_all=in_all,
        )
        if claim.commands:
            await campaigns.spend(
                connection,
                campaign,
                opens_window=granted.opens_window,
                used=len(claim.commands),
                first_time=claim.fresh,
                command=body,
            )
        return claim


def _times(rules: Rules) -> Times:
    return Times(rules.answer_within, rules.patience, rules.device_timeout)


def _command(campaign: Campaign) -> str:
    """The campaign's command body, the one frozen by its first claim if there was one."""
    if campaign.command is not None:
        return campaign.command
    if not campaign.firmware_url or campaign.firmware_version is None:
        raise InvalidInput("the campaign's firmware version does not exist, or has no file_url")
    return encode_command(
        campaign.id, campaign.firmware_url, campaign.firmware_version, campaign.firmware_checksum
    ).decode()
