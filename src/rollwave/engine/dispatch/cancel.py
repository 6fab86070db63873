"""Tells devices in progress that their campaign was cancelled: at least once, at a limited rate, and past every gate.

A device that does not react is not told again. A device to which another worker is sending its update is told when that
worker has finished, or when its lease has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import is_valid_id
from rollwave.engine.dispatch.delivery import Delivery
from rollwave.engine.dispatch.session import Answers, Batch, CommandSession
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.locked_campaign import lock_campaign
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.payload import encode_cancel
from rollwave.settings import Settings
from rollwave.store import cancels
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times

_log = get_logger("dispatcher")

DEVICES_PER_BATCH, SECONDS_PER_BATCH = 200, 0.25
"""Maximum number of devices in a batch, and the seconds between the claims of two batches of a campaign, over all
workers. In any second at most five batches are claimed: 1,000 devices."""

REFUSED_SECONDS = 60.0
"""Seconds before the next try for a device whose cancel command the broker refuses."""


class Cancels:
    """Tells the devices of one campaign at a time. Any number of workers may do this in parallel."""

    def __init__(
        self,
        pool: Pool,
        command_session: CommandSession,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        *,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        """``stopping``: whether the worker stops; then nothing more is claimed."""
        self._pool = pool
        self._command_session = command_session
        self._settings = settings
        self._stopping = stopping
        self._turn_seconds = turn_seconds
        self._delivery = Delivery(pool, command_session, settings, passes_brakes=True)

    async def tell(self, ref: CampaignRef) -> float:
        """Tell devices of an ABORTED campaign for one turn, if it was cancelled.

        Returns the seconds until there may be more to tell; infinite: nothing is left. While the broker is unavailable,
        nothing is claimed.
        """
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            if await cancels.due_in(connection, ref.tenant_id, ref.campaign_id) is None:
                return inf
        try:
            await self._command_session.session()
        except BrokerUnavailable:
            return SOON_SECONDS
        told, turn_ends = 0, time.monotonic() + self._turn_seconds
        wait = 0.0
        while not self._stopping() and time.monotonic() + wait < turn_ends:
            await asyncio.sleep(wait)
            batch = await self._claim(ref)
            wait = batch.retry_in
            if batch.commands:
                answers = await self._send(ref, batch)
                told += len(answers.taken)
                if answers.unanswered:
                    wait = SOON_SECONDS
                    break
        if told:
            _log.info("ota_devices_cancelled", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id, devices=told)
        return wait

    async def _claim(self, ref: CampaignRef) -> Batch:
        """Claim a batch in one transaction. ``retry_in``: seconds until the next one."""
        lease, lease_ends = self._settings.lease, time.monotonic() + self._settings.lease
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            locked = await lock_campaign(connection, ref, self._settings)
            wait = await cancels.due_in(connection, ref.tenant_id, ref.campaign_id)
            if wait is None or wait > 0:
                return Batch(retry_in=inf if wait is None else wait)
            commands = await cancels.claim(
                connection, locked.row, limit=DEVICES_PER_BATCH, lease=lease, next_in=SECONDS_PER_BATCH
            )
            left = None if commands else await cancels.next_due(connection, locked.row)
        await reach(Failpoint.CLAIMED)
        if not commands:
            return Batch(retry_in=inf if left is None else max(left, SECONDS_PER_BATCH))
        # A device that was offline must not begin once the broker has dropped this command.
        lasts = locked.policy.device_timeout
        times = Times(lasts, lasts, lasts)
        return Batch(commands, encode_cancel(ref.campaign_id), times, lease_ends, retry_in=SECONDS_PER_BATCH)

    async def _send(self, ref: CampaignRef, batch: Batch) -> Answers:
        """Publish the batch, and record the broker's answers. A device that cannot be addressed counts as told."""
        addressable = [each for each in batch.commands if is_valid_id(each.device_id)]
        answers = await self._delivery.publish(ref, batch.only(addressable), asyncio.Event(), _always)
        told = [each.device_id for each in (*answers.taken, *(set(batch.commands) - set(addressable)))]
        refused = [each.device_id for each in (*answers.refused, *answers.ended_session, *answers.too_large)]
        unanswered = [each.device_id for each in answers.unanswered]
        key = ref.tenant_id, ref.campaign_id
        async with tenant_transaction(self._pool, ref.tenant_id, generic_plans=True) as connection:
            await cancels.mark(connection, *key, told)
            await reach(Failpoint.MARK_WRITTEN)
        async with tenant_transaction(self._pool, ref.tenant_id, generic_plans=True) as connection:
            await cancels.release(connection, *key, refused, delay=REFUSED_SECONDS)
            await cancels.release(connection, *key, unanswered, delay=SOON_SECONDS)
        metrics.cancelled.inc(len(answers.taken))
        metrics.publish_failed.inc(answers.failed)
        return answers


async def _always() -> bool:
    """No gate holds back a cancel command."""
    return True
