"""One claim: a short transaction under the campaign's lock that takes what may go now."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeAlias

from rollwave.domain import firmware
from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.policy.document import Rules
from rollwave.domain.policy.pace import Allowance, allowance
from rollwave.domain.policy.waves import Wave
from rollwave.engine import stop
from rollwave.engine.dispatch.batch import Batch
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.rules import read_rules, read_waves
from rollwave.engine.timing import SOON_SECONDS
from rollwave.errors import InvalidInput
from rollwave.log import get_logger
from rollwave.mqtt.payload import encode_command
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, listeners
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Claim, Times

_log = get_logger("dispatcher")

LISTENER_START_SECONDS = 3.0
"""Seconds that a listener may take to subscribe before it is logged that sending waits for it."""

Count: TypeAlias = Callable[[CampaignRef], Awaitable[int]]
"""Counts a campaign's devices by its rows, for the first time. Returns how many; 0: it cannot be counted yet."""


class Claims:
    """Claims one campaign's devices, as far as its pace, waves and caps allow now."""

    def __init__(self, pool: Pool, settings: Settings, count: Count, *, steps: int) -> None:
        self._pool = pool
        self._settings = settings
        self._steps = steps
        self._count = count
        self._unheard_since: float | None = None
        self._told = False

    async def claim(self, ref: CampaignRef) -> Batch:
        """A batch to be sent before its lease ends; empty, with ``retry_in``, where nothing may go now."""
        devices = None
        while (batch := await self._claim(ref, devices)) is None:
            devices = await self._count(ref)
        return batch

    async def _claim(self, ref: CampaignRef, devices: int | None) -> Batch | None:
        """None: its ``devices`` are to be counted first."""
        lease_ends = time.monotonic() + self._settings.lease
        stopped = None
        batch = Batch()
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            if campaign.status is not CampaignStatus.RUNNING or campaign.being_targeted:
                return batch
            if not campaign.at_home:
                return Batch(retry_in=SOON_SECONDS)
            try:
                rules = read_rules(campaign, self._settings)
                body = _command(campaign)
                waves = await read_waves(connection, campaign, devices=devices)
            except InvalidInput as error:
                stopped = await stop.pause_unreadable(
                    connection, campaign.tenant_id, stop.standing_of(campaign), str(error)
                )
            else:
                if not (waves and campaign.counted):
                    return None if devices is None else Batch(retry_in=SOON_SECONDS)  # another worker is at it
                granted = await self._allowance(connection, campaign, rules, waves[min(campaign.wave, len(waves) - 1)])
                claim = await self._take(connection, campaign, granted, body, rules.device_timeout)
                retry_in = 0.0 if claim.any else await self._retry_in(connection, campaign, granted)
                batch = Batch(
                    claim.commands, body.encode(), _times(rules, campaign), lease_ends, claim.skipped, retry_in=retry_in
                )
                await reach(Failpoint.CLAIM_WRITTEN)
        if stopped:
            stopped.announce()
        if batch.commands:
            await reach(Failpoint.CLAIMED)
        return batch

    async def _allowance(self, connection: Connection, campaign: Campaign, rules: Rules, wave: Wave) -> Allowance:
        if not self._note(heard=await listeners.heard(connection, self._settings.listener_slots)):
            return Allowance(0, 0, opens_window=False, retry_in=SOON_SECONDS)
        flying = 0
        if rules.max_in_flight is not None:
            flying = await executions.in_flight(connection, campaign, up_to=rules.max_in_flight)
        pace = campaign.pace(tick=self._settings.tick_interval, in_flight=flying, steps=self._steps)
        left = self._settings.claim_batch if wave.up_to is None else wave.up_to - campaign.sent
        return allowance(pace, wave_left=left)

    def _note(self, *, heard: bool) -> bool:
        """Log once that sending waits for a listener, when it takes longer than a start does. Returns ``heard``."""
        now = time.monotonic()
        if heard:
            self._unheard_since, self._told = None, False
        elif self._unheard_since is None:
            self._unheard_since = now
        elif not self._told and now - self._unheard_since > LISTENER_START_SECONDS:
            self._told = True
            _log.warning("ota_sending_waits", reason="no listener is subscribed, so reports could not come in")
        return heard

    async def _retry_in(self, connection: Connection, campaign: Campaign, granted: Allowance) -> float:
        """Nothing could be claimed: when may it be worth while?"""
        if not granted.tokens:
            return granted.retry_in
        due_in = await executions.next_due(connection, campaign)
        if not granted.fresh or (due_in is not None and due_in <= 0):
            return SOON_SECONDS  # a place in flight, a gate, or the sweeper comes first
        return inf if due_in is None else due_in

    async def _take(
        self, connection: Connection, campaign: Campaign, granted: Allowance, body: str, in_all: float
    ) -> Claim:
        if not granted.tokens:
            return Claim((), 0)
        return await executions.claim(
            connection,
            campaign,
            tokens=min(granted.tokens, self._settings.claim_batch),
            fresh=min(granted.fresh, self._settings.claim_batch),
            lease=self._settings.lease,
            in_all=in_all,
            opens_window=granted.opens_window,
            command=body,
        )


def _times(rules: Rules, campaign: Campaign) -> Times:
    return Times(rules.answer_within, rules.patience, rules.device_timeout, campaign.activity.suspended_for)


def _command(campaign: Campaign) -> str:
    """The campaign's command body, the one frozen by its first claim if there was one.

    Raises:
        InvalidInput: its firmware cannot be read, so the campaign must be held.
    """
    if campaign.command is not None:
        return campaign.command
    found = firmware.read(
        campaign.firmware_url, campaign.firmware_version, campaign.firmware_checksum, campaign.firmware_size
    )
    return encode_command(campaign.id, found.url, found.version, found.checksum, found.size).decode()
