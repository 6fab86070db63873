"""Claim, commit, publish, mark.

A claim is a short transaction under the campaign's lock. No connection is held while the broker is spoken to.
A worker that dies in between leaves a lease that runs out, and the device is sent the same attempt again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from rollwave.domain.campaign import CampaignStatus
from rollwave.engine.agenda import SOON, TURN
from rollwave.engine.claimer import Claimer
from rollwave.engine.conveyor import Conveyor
from rollwave.engine.publisher import Publisher
from rollwave.engine.sender import Sender
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, slots
from rollwave.store.campaigns import Due
from rollwave.store.database import Pool, tenant_transaction

_log = get_logger("dispatcher")

AT_LEAST = 0.01
"""Seconds in which there is never more to send."""


class Dispatcher:
    """Sends one campaign's commands, as far as its pace, waves and caps allow now."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        *,
        steps: int = 1,
    ) -> None:
        """``steps``: parts in which a tick's devices go out, one after the other; 1: all at once."""
        self._pool = pool
        self._settings = settings
        self._publisher = publisher
        self._claimer = Claimer(pool, settings, steps=steps)
        self._sender = Sender(pool, publisher, settings)
        self._stopping = stopping

    async def dispatch(self, due: Due) -> float:
        """Send what may go now, for a turn. Returns the seconds until there may be more; 0: there is more now.

        One batch is claimed while the one before it is handed over, and what is answered for is marked (``Conveyor``).
        A broker that is away claims nothing.
        """
        try:
            await self._publisher.session()
        except BrokerUnavailable:
            return SOON
        wait, turn_ends = SOON, time.monotonic() + TURN
        conveyor = Conveyor(
            self._sender, due, most=self._settings.claim_batch, still_runs=partial(self._still_runs, due)
        )
        try:
            while not self._stopping():
                batch = await self._claimer.claim(due)
                if not await conveyor.put(batch):
                    break
                if not (batch.commands or batch.skipped):
                    wait = max(batch.retry_in, AT_LEAST)
                    break
                if time.monotonic() >= turn_ends:
                    wait = 0.0
                    break
        finally:
            # Also when claiming has failed: what is on its way is marked before anybody claims it again.
            await conveyor.finish()
        if conveyor.taken:
            await self._announce(due, conveyor.taken)
        return wait

    async def _still_runs(self, due: Due) -> bool:
        """Whether more may go: the campaign has not been stopped since, and reports can come in."""
        async with tenant_transaction(self._pool, due.tenant_id) as connection:
            campaign = await campaigns.get(connection, due.tenant_id, due.campaign_id)
            heard = await slots.heard(connection, self._settings.listener_slots)
        return heard and campaign.status is CampaignStatus.RUNNING and campaign.at_home

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
