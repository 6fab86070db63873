"""What has been claimed, on its way: publish before the lease ends, then mark what was taken and release the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.refusal import TEXT, Refusal
from rollwave.engine import stop
from rollwave.engine.dispatch.batch import Batch, Sent
from rollwave.engine.dispatch.isolate import Search
from rollwave.engine.dispatch.session import CommandSession, Handover
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, executions, remaining
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times

_log = get_logger("dispatcher")

MAX_DEVICES_NAMED = 5
"""Devices that one line of the log names, at most."""


class Delivery:
    """Sends batches; holds no connection while the broker is spoken to."""

    def __init__(self, pool: Pool, publisher: CommandSession, settings: Settings) -> None:
        self._pool = pool
        self._publisher = publisher
        self._settings = settings
        self._search = Search(publisher, patience=settings.publish_timeout)

    async def publish(
        self, ref: CampaignRef, batch: Batch, handed: asyncio.Event, still_runs: Callable[[], Awaitable[bool]]
    ) -> Sent:
        """Hand the commands to the session, set ``handed``, and return what the broker answered.

        Where the broker ends the session meanwhile, those without an answer are sent again, in parts and each after
        a look whether the campaign ``still_runs``. :meth:`settle` is to follow.
        """
        with metrics.publish_seconds.time():
            suspects = [command for command in batch.commands if command.suspect]
            sent = await self._publish(ref, batch.only([each for each in batch.commands if not each.suspect]), handed)
            handed.set()
            if sent.lost or (suspects and not sent.unanswered):
                searched = await self._search.run(ref, batch.only([*sent.unanswered, *suspects]), still_runs)
                sent.unanswered = searched.unanswered
                sent.add(searched)
            else:
                sent.unanswered += suspects
        await reach(Failpoint.PUBLISHED)
        return sent

    async def settle(self, ref: CampaignRef, times: Times, answers: Sequence[Sent]) -> None:
        """Write down what became of a batch, from the answers for its parts."""
        sent = Sent()
        for each in answers:
            sent.add(each)
            sent.unanswered += each.unanswered
            sent.trouble = sent.trouble or (each.trouble if each.failed else "")
        await self._settle(ref, times, sent)
        await reach(Failpoint.MARKED)
        metrics.dispatched.inc(len(sent.taken))

    async def give_back(self, ref: CampaignRef, commands: Sequence[Claimed]) -> None:
        """Claimed, and not to be sent after all: at once to be skipped, or claimed again under the same attempt."""
        if commands:
            await self._release(ref, commands, delay=0)

    async def _settle(self, ref: CampaignRef, times: Times, sent: Sent) -> None:
        """Mark what was taken and release the rest, each in a transaction of its own with its rows in one order."""
        tenant_id, campaign_id = ref.tenant_id, ref.campaign_id
        if sent.taken:
            async with tenant_transaction(self._pool, tenant_id, generic_plans=True) as connection:
                await executions.mark_sent(connection, tenant_id, campaign_id, sent.taken, times)
                await reach(Failpoint.MARK_WRITTEN)
        metrics.publish_failed.inc(sent.failed)
        if sent.too_large and not await self._any_taken(ref, sent):
            await self._hold(ref, sent)
            return
        delay = min(self._settings.tick_interval, self._settings.lease)
        for unsent, refusal in (
            (sent.refused, Refusal.REJECTED),
            (sent.ended, Refusal.CONNECTION_ENDED),
            (sent.too_large, Refusal.TOO_LARGE),
            (sent.unanswered, None),
        ):
            if unsent:
                await self._release(ref, unsent, delay=delay, refusal=refusal)
        self._tell(ref, sent)

    def _tell(self, ref: CampaignRef, sent: Sent) -> None:
        for devices, refusal in ((sent.ended, Refusal.CONNECTION_ENDED), (sent.too_large, Refusal.TOO_LARGE)):
            if devices:
                _log.warning(
                    "ota_devices_refused",
                    campaign_id=ref.campaign_id,
                    tenant_id=ref.tenant_id,
                    devices=len(devices),
                    device_ids=[each.device_id for each in devices[:MAX_DEVICES_NAMED]],
                    reason=TEXT[refusal],
                )
        if not sent.refused and not sent.unanswered:
            self._publisher.told.clear(ref.campaign_id)
        elif self._publisher.told.is_new(ref.campaign_id, "refused" if sent.refused else "unanswered"):
            _log.warning(
                "ota_mqtt_publish_failed",
                campaign_id=ref.campaign_id,
                tenant_id=ref.tenant_id,
                devices=sent.failed,
                error=sent.trouble,
            )

    async def _any_taken(self, ref: CampaignRef, sent: Sent) -> bool:
        """Whether the broker has ever taken the campaign's command for one of its devices."""
        if sent.taken:
            return True
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            return await remaining.any_taken(connection, ref.tenant_id, ref.campaign_id)

    async def _hold(self, ref: CampaignRef, sent: Sent) -> None:
        """Pause a campaign whose command is too large for every device: no device is blamed for that."""
        await self.give_back(ref, [*sent.refused, *sent.ended, *sent.too_large, *sent.unanswered])
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            reason = (
                f"the campaign's command is larger than the broker takes: {sent.limit}. Raise the broker's maximum "
                "packet size and start the campaign again, or abort it and create one with a shorter file_url"
            )
            stopped = await stop.pause_unreadable(connection, ref.tenant_id, stop.standing_of(campaign), reason)
        if stopped:
            stopped.announce()

    async def _release(
        self, ref: CampaignRef, unsent: Sequence[Claimed], *, delay: float, refusal: Refusal | None = None
    ) -> None:
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            await executions.release(connection, ref.tenant_id, ref.campaign_id, unsent, delay=delay, refusal=refusal)

    async def _publish(self, ref: CampaignRef, batch: Batch, handed: asyncio.Event) -> Sent:
        """Publish before the lease ends and no later: past it, another worker may have the devices."""
        if not batch.commands:
            return Sent()
        patience = min(self._settings.publish_timeout, batch.lease_ends - time.monotonic())
        try:
            async with asyncio.timeout(patience):
                session = await self._publisher.session()
        except (BrokerUnavailable, TimeoutError) as error:
            return Sent(unanswered=list(batch.commands), trouble=str(error) or "the broker does not let us in")
        patience = min(self._settings.publish_timeout, batch.lease_ends - time.monotonic())
        sent = await Handover(session, ref, batch, self._publisher.precedence).run(patience, handed)
        if sent.slow:
            await self._publisher.drop(session)
        return sent
