"""One publishing session, opened when first needed and again when lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from rollwave.breaker import Breaker
from rollwave.domain.campaign import CampaignRef
from rollwave.engine.backpressure import Backpressure
from rollwave.engine.dispatch.batch import Batch, Sent
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable, MessageTooLarge
from rollwave.log import get_logger
from rollwave.log_once import LogOnce, Problems, tell
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.topics import command_topic
from rollwave.store.executions import Claimed

_log = get_logger("publisher")

PUBLISHER = "publisher"


class CommandSession:
    """``async with`` is its lifetime. Listening has a session of its own, so that neither holds up the other."""

    def __init__(
        self, broker: Broker, problems: Problems | None = None, precedence: Backpressure | None = None
    ) -> None:
        """``problems``: of the process. A listener that has logged why the broker is away has given the hint."""
        self._broker = broker
        self._problems = problems or Problems()
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._breaker = Breaker()
        self.precedence = precedence or Backpressure()
        self.told = LogOnce()
        """Of which campaigns it has been said that their commands are not taken."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session, if one is open."""
        self._session = None
        await self._closing.aclose()

    async def session(self) -> Session:
        """A session that stands, as far as this side knows.

        Raises:
            BrokerUnavailable: none can be had now. Logged once until the broker is back.
        """
        async with self._opening:
            if self._session is not None and self._session.connected:
                return self._session
            await self._closing.aclose()
            self._session = None
            self._session = await self._open(self._closing)
            return self._session

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Session]:
        """A session beside the shared one, for what may cost it the connection. Closed with the block.

        Raises:
            BrokerUnavailable: as :meth:`session`.
        """
        async with AsyncExitStack() as closing:
            yield await self._open(closing)

    async def _open(self, closing: AsyncExitStack) -> Session:
        if not self._breaker.admits():
            raise BrokerUnavailable(f"no MQTT session with {self._broker.address}; trying again shortly")
        try:
            session = await closing.enter_async_context(Session.connect(self._broker))
        except BrokerUnavailable as error:
            # Not every campaign of every tick may knock again.
            if self._breaker.failed():
                tell(self._problems, PUBLISHER, "ota_mqtt_publish_failed", error, broker=self._broker.address)
            raise
        self._problems.over(PUBLISHER)
        away_for = self._breaker.worked()
        if away_for is not None:
            _log.info("ota_mqtt_publisher_connected", broker=self._broker.address, away_for=round(away_for, 1))
        return session

    @property
    def away_for(self) -> float | None:
        """Seconds for which no session could be had; None: one can, as far as is known."""
        return self._breaker.away_for

    async def drop(self, session: Session) -> None:
        """Close a session that did not answer in time, so that nothing still queued in it goes out late."""
        session.abort()
        async with self._opening:
            if self._session is session:
                self._session = None
                await self._closing.aclose()


COMMANDS_PER_TURN = 50
"""Commands handed over before others in this process get their turn: each answer of the database waits for it."""


class Handover:
    """One batch on its way over one session."""

    def __init__(self, session: Session, ref: CampaignRef, batch: Batch, precedence: Backpressure) -> None:
        self._session = session
        self._due = ref
        self._batch = batch
        self._precedence = precedence
        self._receipts: list[tuple[Claimed, Receipt]] = []
        self._too_large: list[Claimed] = []
        self._trouble = self._limit = ""

    async def run(self, patience: float, handed: asyncio.Event | None = None) -> Sent:
        """Publish, set ``handed``, and wait for the answers, for ``patience`` seconds in all. Raises nothing of ours.

        Where the result is ``slow``, the session is to be aborted: what is still queued in it must not go out late.
        """
        slow = lost = False
        try:
            async with asyncio.timeout(patience):
                await self._hand_over()
                if handed is not None:
                    handed.set()
                for _, receipt in self._receipts:
                    if not receipt.answered:  # the broker answers in order: one wait is for many
                        await receipt.settled()
        except BrokerUnavailable as error:
            self._trouble, lost = str(error), True
        except TimeoutError:
            self._trouble, slow = f"the broker did not acknowledge within {patience:.0f} s", True
        return self._sorted(lost=lost, slow=slow)

    async def _hand_over(self) -> None:
        """Put every command into the session's queue, and its receipt beside it."""
        batch, tenant_id, publish = self._batch, self._due.tenant_id, self._session.publish
        expires_in, receipts = batch.times.answer_timeout, self._receipts
        for number, command in enumerate(batch.commands, start=1):
            if time.monotonic() >= batch.lease_ends:
                self._trouble = "the lease ended"
                return
            topic = command_topic(tenant_id, command.device_id)
            try:
                receipt = await publish(topic, batch.body, attempt=command.attempt, expires_in=expires_in)
            except MessageTooLarge as error:
                self._limit = str(error)
                self._too_large.append(command)
            else:
                receipts.append((command, receipt))
            if number == 1:
                await reach(Failpoint.PUBLISHING)
            if number % COMMANDS_PER_TURN == 0:
                await self._precedence.give_way()

    def _sorted(self, *, lost: bool, slow: bool) -> Sent:
        commands = self._batch.commands
        sent = Sent(too_large=self._too_large, limit=self._limit, slow=slow)
        for command, receipt in self._receipts:
            if receipt.taken:
                sent.taken.append(command)
            elif receipt.refused:
                sent.refused.append(command)
            else:
                lost = lost or receipt.answered
                sent.unanswered.append(command)
        sent.unanswered += commands[len(self._receipts) + len(self._too_large) :]
        sent.lost = lost and not slow
        told = "refused by the broker" if sent.refused else "the connection ended before the broker acknowledged it"
        sent.trouble = self._trouble or self._limit or told
        return sent
