"""Receives reports over a persistent session, and acknowledges them only after they are committed.

There are numbered slots. A slot is a client id, its session in the broker, and an advisory lock in PostgreSQL. The
worker that holds the lock listens. When a worker dies, its lock is free, and the next holder gets the broker's queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.engine import identity
from rollwave.engine.backpressure import Backpressure
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest import batches, broker_drops
from rollwave.engine.ingest.batches import Batch, MessageQueue
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.ingest.takeover import Takeovers
from rollwave.engine.ingest.troubles import FAULT_PAUSE_SECONDS, Troubles
from rollwave.engine.watchdog import GIVE_UP_SECONDS, Life
from rollwave.errors import BrokerUnavailable, ConfigurationError, IdentityUndecided
from rollwave.log import get_logger, trace
from rollwave.log_once import Problems
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import ASK_FILTER, STATUS_FILTER
from rollwave.settings import Settings
from rollwave.store import listeners
from rollwave.store.database import Pool, direct_pool
from rollwave.store.guarded_pool import DIRECT, guarded
from rollwave.store.url import check_direct
from rollwave.tasks import end, failure_of, raise_if_cancelled, run_with

_log = get_logger("listener")

SLOT_POLL_SECONDS = 1.0
"""Seconds between two tries for a slot that another worker holds."""

SILENCE_SECONDS = 60.0
"""Seconds without a sign of life after which a listener is replaced. A working one gives a sign every two seconds."""

DRAIN_SECONDS = batches.DRAIN_SECONDS + 2
"""Seconds in which a cancelled listener finishes its batch and closes its session."""

MAX_MESSAGES_READ_AHEAD = 64
"""Maximum number of messages read from the broker beyond those in the queue."""


@dataclass(slots=True)
class Presence:
    """Whether reports of this slot are received: by this worker, or by another one that holds the slot."""

    subscribed: bool = False
    standby: bool = False


class Listener:
    """Holds one slot whenever it is free, and commits the reports that arrive there."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        *,
        slot: int = 0,
        backpressure: Backpressure | None = None,
        problems: Problems | None = None,
        on_settled: Callable[[Sequence[CampaignRef]], None] = lambda _: None,
        on_question: Callable[[TenantId, DeviceId], None] | None = None,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """A listener that commits reports and calls back for their consequences.

        Args:
            problems: shared by the process, since other parts meet the same problems.
            on_settled: called with campaigns in which every device that was sent to is terminal now.
            on_question: called with a device that asks what it should do.
            beside: work that runs beside each session with the broker. Its error ends the session.

        Raises:
            ConfigurationError: a setting cannot be used.
        """
        self._pool = pool
        self._settings = settings
        self._slot = slot
        if settings.database_direct_url is not None:
            check_direct(settings.database_direct_url.get_secret_value())
        self._broker = Broker.from_settings(settings)
        problems = problems or Problems()
        self._on_settled = on_settled
        self._beside = beside
        self._ingest = Ingest(pool, settings, on_question)
        self._backpressure = backpressure or Backpressure()
        self._troubles = Troubles(slot, problems)
        self._takeovers = Takeovers()
        self._life = Life()
        self.presence = Presence()

    async def run(self, stopping: asyncio.Event | None = None, life: Life | None = None) -> None:
        """Listen until ``stopping`` is set or the task is cancelled. The batch in progress is finished in both cases.

        An error ends the session with the broker, which keeps unacknowledged messages, and another session follows.

        Args:
            life: gets a sign every few seconds.

        Raises:
            ConfigurationError: the slot's lock would go through a connection pooler.
        """
        stop = stopping or asyncio.Event()
        self._life = life or self._life
        async with AsyncExitStack() as stack:
            direct = self._settings.database_direct_url
            # A lock belongs to a database session, which a pooler would share with other clients.
            sessions = self._pool
            if direct is not None:
                pool = await stack.enter_async_context(direct_pool(direct.get_secret_value()))
                sessions = guarded(pool, DIRECT)
            while not stop.is_set():
                await self._hold_slot(stop, sessions)
                pause = max(self._troubles.pause or SLOT_POLL_SECONDS, self._takeovers.pause)
                await self._rest(stop, max(pause, FAULT_PAUSE_SECONDS) if self.fault else pause)

    async def _rest(self, stop: asyncio.Event, seconds: float) -> None:
        """Wait and give signs of life: after a takeover by another client, the wait may last a minute."""
        ends = time.monotonic() + seconds
        while not stop.is_set() and (left := ends - time.monotonic()) > 0:
            self._life.sign()
            await _wait(stop, min(left, listeners.PULSE_SECONDS))

    async def _hold_slot(self, stop: asyncio.Event, sessions: Pool) -> None:
        """Try to get the slot, and listen while this worker holds it. Record the problem if that fails."""
        self._life.sign()
        try:
            installation = await identity.require(self._pool)
            if sessions is not self._pool:
                await identity.require_same(sessions, installation)
            async with listeners.acquire_slot(sessions, self._slot) as lock:
                self.presence.standby = lock is None
                self._ingest.forget()  # uncommitted messages of an earlier session are sent again
                if lock is not None:
                    await self._listen(stop, lock, installation)
            self._troubles.over()
        except IdentityUndecided:  # the reason is logged already
            self.presence.standby = False
            self._troubles.failed()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the listener must start again
            raise_if_cancelled()
            self._troubles.met(error)
        finally:
            self.presence.subscribed = False

    @property
    def away_for(self) -> float | None:
        """Seconds for which it could neither listen nor stand by; None: it can."""
        return self._troubles.away_for

    @property
    def fault(self) -> str:
        """Its present problem that is not an outage, without secrets. Empty: there is none."""
        return self._ingest.fault or self._troubles.fault

    async def _listen(self, stop: asyncio.Event, lock: listeners.Lock, installation: str) -> None:
        client_id = f"{self._settings.mqtt_client_id or f'rollwave-{installation}'}-{self._slot}"
        shared = f"$share/rollwave-{installation}/{STATUS_FILTER}"
        # Several slots share the load. A single slot needs no shared subscription, which some brokers lack.
        topic_filter = STATUS_FILTER if self._settings.listener_slots == 1 else shared
        last = await lock.announce()
        async with (
            Session.connect(
                self._broker, client_id, persistent=True, manual_ack=True, buffer=MAX_MESSAGES_READ_AHEAD
            ) as session,
            self._takeovers.watch(session, client_id, lock, stop),
        ):
            await self._take_in(session, stop, lock, topic_filter, last)
            lost = "the slot's lock" if session.connected else "the session with the broker"
        if not stop.is_set():
            raise BrokerUnavailable(f"{lost} was lost")

    async def _take_in(
        self, session: Session, stop: asyncio.Event, lock: listeners.Lock, topic_filter: str, last: str | None
    ) -> None:
        """Commit messages until the session or the slot is lost, a part fails, or the worker stops."""
        queue = MessageQueue(self._settings.report_batch, self._settings.report_batch_wait)
        beside = [
            # A broker sends queued messages before it answers the subscription, so they are committed meanwhile.
            _close_after(self._hold_on(session, lock, topic_filter, last), queue),
            _close_after(_read(session, queue), queue),
            _close_after(stop.wait(), queue),
        ]
        if self._beside is not None:
            beside.append(self._beside())
        if self._slot == 0:
            beside.append(broker_drops.watch(self._broker))
        try:
            await run_with(
                batches.commit_in_order(queue, lambda batch: self._commit(session, batch), stop),
                *beside,
                grace=batches.DRAIN_SECONDS + 1,
            )
        finally:
            metrics.report_lag.set(0)

    async def _hold_on(self, session: Session, lock: listeners.Lock, topic_filter: str, last: str | None) -> None:
        """Subscribe, record in the database that the slot is subscribed, and keep the slot until it is lost."""
        subscribing = asyncio.create_task(self._subscribe(session, topic_filter, last))
        try:
            while not (await asyncio.wait({subscribing}, timeout=listeners.PULSE_SECONDS))[0]:
                self._life.sign()
                await lock.keep()
            subscribing.result()
        finally:
            await end(subscribing, within=GIVE_UP_SECONDS)
            failure_of(subscribing)
        await lock.beat(topic_filter)
        _log.info(
            "ota_status_listener_subscribed",
            topic=topic_filter,
            slot=self._slot,
            session_present=session.session_present,
        )
        self._troubles.over(subscribed=True)
        self.presence.subscribed = True
        await lock.listen(topic_filter, self._life.sign)
        self.presence.subscribed = False

    async def _subscribe(self, session: Session, topic_filter: str, last: str | None) -> None:
        # Also if the session is present: the broker may have kept the session without the subscription.
        await session.subscribe(topic_filter)
        if last is not None and last != topic_filter and session.session_present:
            # The number of slots was changed.
            await session.unsubscribe(last, last.replace(STATUS_FILTER, ASK_FILTER))
        try:
            # Questions of devices, if the broker's ACL allows this subscription.
            await session.subscribe(topic_filter.replace(STATUS_FILTER, ASK_FILTER))
        except BrokerUnavailable as error:
            if not session.connected:
                raise
            _log.warning("ota_questions_refused", error=str(error))

    async def _commit(self, session: Session, batch: Batch) -> None:
        with trace("batch"):
            await reach(Failpoint.RECEIVED)
            with self._backpressure.hearing(len(batch.messages)):
                touched = await self._ingest.take_in(batch.messages, behind=batch.behind)
            await reach(Failpoint.REPORTS_COMMITTED)
            await session.acknowledge_all(batch.messages)
            await reach(Failpoint.ACKNOWLEDGED)
            self._on_settled(touched)


async def _read(session: Session, queue: MessageQueue) -> None:
    async for incoming in session.messages():
        await queue.put(incoming)


async def _close_after(work: Awaitable[object], queue: MessageQueue) -> None:
    try:
        await work
    finally:
        queue.close()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
