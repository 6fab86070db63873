"""What has been claimed, on its way: publish before the lease ends, then mark what was taken and release the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from rollwave import metrics
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.publisher import Publisher
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.campaigns import Due
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times

_log = get_logger("dispatcher")

AT_ONCE = 50
"""Commands handed over before others in this process get their turn: each answer of the database waits for it."""

NO_TIMES = Times(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one claim took, to be sent before ``lease_ends`` (of this process's monotonic clock)."""

    commands: Sequence[Claimed] = ()
    body: bytes = b""
    times: Times = NO_TIMES
    lease_ends: float = 0.0
    skipped: int = 0
    retry_in: float = inf
    """Seconds until there may be more to claim, where nothing was."""

    def part(self, first: int, last: int) -> Batch:
        """A share of its commands, from ``first`` to before ``last``."""
        return replace(self, commands=self.commands[first:last])


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of what was published: taken by the broker, refused by it one by one, or not answered."""

    taken: list[Claimed]
    refused: list[Claimed]
    unanswered: list[Claimed]
    trouble: str

    @property
    def failed(self) -> int:
        """Commands that the broker did not take, as far as we know."""
        return len(self.refused) + len(self.unanswered)


class Sender:
    """Sends batches; holds no connection while the broker is spoken to."""

    def __init__(self, pool: Pool, publisher: Publisher, settings: Settings) -> None:
        self._pool = pool
        self._publisher = publisher
        self._settings = settings

    async def publish(self, due: Due, batch: Batch, handed: asyncio.Event) -> Sent:
        """Hand the commands to the session, set ``handed``, and return what the broker answered.

        :meth:`settle` is to follow.
        """
        with metrics.publish_seconds.time():
            sent = await self._publish(due, batch, handed)
        await reach(Failpoint.PUBLISHED)
        return sent

    async def settle(self, due: Due, times: Times, answers: Sequence[Sent]) -> None:
        """Write down what became of a batch, from the answers for its parts."""
        sent = Sent(
            [command for each in answers for command in each.taken],
            [command for each in answers for command in each.refused],
            [command for each in answers for command in each.unanswered],
            next((each.trouble for each in answers if each.failed), ""),
        )
        await self._settle(due, times, sent)
        await reach(Failpoint.MARKED)
        metrics.dispatched.inc(len(sent.taken))

    async def give_back(self, due: Due, commands: Sequence[Claimed]) -> None:
        """Claimed, and not to be sent after all: at once to be skipped, or claimed again under the same attempt."""
        if commands:
            await self._release(due, commands, delay=0)

    async def _settle(self, due: Due, times: Times, sent: Sent) -> None:
        """Mark what was taken and release the rest, each in a transaction of its own with its rows in one order."""
        tenant_id, campaign_id = due.tenant_id, due.campaign_id
        if sent.taken:
            async with tenant_transaction(self._pool, tenant_id, generic_plans=True) as connection:
                await executions.mark_sent(connection, tenant_id, campaign_id, sent.taken, times)
                await reach(Failpoint.MARK_WRITTEN)
        delay = min(self._settings.tick_interval, self._settings.lease)
        for unsent, refused in ((sent.refused, True), (sent.unanswered, False)):
            if unsent:
                await self._release(due, unsent, delay=delay, refused=refused)
        metrics.publish_failed.inc(sent.failed)
        if not sent.failed:
            self._publisher.told.over(campaign_id)
        elif self._publisher.told.news(campaign_id, "refused" if sent.refused else "unanswered"):
            _log.warning(
                "ota_mqtt_publish_failed",
                campaign_id=campaign_id,
                tenant_id=tenant_id,
                devices=sent.failed,
                error=sent.trouble,
            )

    async def _release(self, due: Due, unsent: Sequence[Claimed], *, delay: float, refused: bool = False) -> None:
        async with tenant_transaction(self._pool, due.tenant_id, generic_plans=True) as connection:
            await executions.release(connection, due.tenant_id, due.campaign_id, unsent, delay=delay, refused=refused)

    async def _publish(self, due: Due, batch: Batch, handed: asyncio.Event) -> Sent:
        """Publish before the lease ends and no later: past it, another worker may have the devices."""
        receipts: list[Receipt] = []
        trouble = ""
        session: Session | None = None
        patience = min(self._settings.publish_timeout, batch.lease_ends - time.monotonic())
        try:
            async with asyncio.timeout(patience):
                session = await self._publisher.session()
                trouble = await self._hand_over(session, due, batch, receipts)
                handed.set()
                for receipt in receipts:
                    if not receipt.answered:  # the broker answers in order: one wait is for many
                        await receipt.settled()
        except BrokerUnavailable as error:
            trouble = str(error)
        except TimeoutError:
            trouble = f"the broker did not acknowledge within {patience:.0f} s"
            if session is not None:
                await self._publisher.drop(session)
        return _sorted(batch.commands, receipts, trouble)

    async def _hand_over(self, session: Session, due: Due, batch: Batch, receipts: list[Receipt]) -> str:
        """Put every command into the session's queue, and its receipt into ``receipts``; returns why not, if not."""
        expires_in = batch.times.answer
        for number, command in enumerate(batch.commands, start=1):
            if time.monotonic() >= batch.lease_ends:
                return "the lease ended"
            topic = command_topic(due.tenant_id, command.device_id)
            receipts.append(await session.publish(topic, batch.body, attempt=command.attempt, expires_in=expires_in))
            if number == 1:
                await reach(Failpoint.PUBLISHING)
            if number % AT_ONCE == 0:
                await self._publisher.precedence.give_way()
        return ""


def _sorted(commands: Sequence[Claimed], receipts: Sequence[Receipt], trouble: str) -> Sent:
    sent = Sent([], [], list(commands[len(receipts) :]), trouble or "refused by the broker")
    for command, receipt in zip(commands, receipts, strict=False):
        if receipt.taken:
            sent.taken.append(command)
        elif receipt.refused:
            sent.refused.append(command)
        else:
            sent.unanswered.append(command)
    return sent
