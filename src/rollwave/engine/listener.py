"""Report, commit, acknowledge: a persistent session whose messages are acknowledged only once they are committed.

Listening is done in numbered slots. A slot is a client id, its session in the broker, and an advisory lock in
PostgreSQL: whoever holds the lock listens. A dead worker's lock is free at once, and the broker's queue with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from rollwave import metrics
from rollwave.breaker import Breaker
from rollwave.engine import drops, identity, pipeline
from rollwave.engine.answerer import Answerer
from rollwave.engine.concluder import Concluder
from rollwave.engine.conductor import Conductor
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.inbox import Batch, Inbox
from rollwave.engine.intake import Intake
from rollwave.engine.precedence import Precedence
from rollwave.engine.takeover import Takeovers
from rollwave.errors import BrokerUnavailable, IdentityUndecided
from rollwave.log import get_logger, trace
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import ASK_FILTER, STATUS_FILTER
from rollwave.settings import Settings
from rollwave.store import slots
from rollwave.store.database import Pool, direct_pool
from rollwave.store.outage import CONNECTION_TROUBLE, is_away
from rollwave.store.watched import watched

_log = get_logger("listener")

SLOT_POLL = 1.0
"""Seconds between two tries for a slot that another worker holds."""

LOOKAHEAD = 64
"""Messages read from the broker beyond those in the inbox."""


@dataclass(slots=True)
class Presence:
    """Whether reports can reach us: this worker is subscribed, or another one holds the slot."""

    subscribed: bool = False
    standby: bool = False


class Listener:
    """Holds one slot whenever it is free, and takes in what arrives there."""

    def __init__(self, pool: Pool, settings: Settings, *, slot: int = 0, precedence: Precedence | None = None) -> None:
        self._pool = pool
        self._settings = settings
        self._slot = slot
        self._broker = Broker.from_settings(settings)
        self._answerer = Answerer(pool, settings)
        self._concluder = Concluder(Conductor(pool, settings))
        self._intake = Intake(pool, settings, self._answerer.ask)
        self._precedence = precedence or Precedence()
        self._trouble = Breaker()
        self._takeovers = Takeovers()
        self._said: set[str] = set()
        self.presence = Presence()
        self.tried = asyncio.Event()
        """Set once it has subscribed, stands by, or could not do either."""

    async def run(self, stopping: asyncio.Event | None = None) -> None:
        """Listen until ``stopping`` is set or the task is cancelled; the batch in hand is finished either way."""
        stop = stopping or asyncio.Event()
        async with AsyncExitStack() as stack:
            direct = self._settings.database_direct_url
            # A lock belongs to a session, which a pooler would give to others too.
            sessions = self._pool
            if direct is not None:
                pool = await stack.enter_async_context(direct_pool(direct.get_secret_value()))
                sessions = watched(pool, "direct")
            await self._run(stop, sessions)

    async def _run(self, stop: asyncio.Event, sessions: Pool) -> None:
        while not stop.is_set():
            try:
                installation = await identity.require(self._pool)
                async with slots.hold(sessions, self._slot) as lock:
                    self.presence.standby = lock is None
                    if lock is not None:
                        await self._listen(stop, lock, installation)
                self._is_well()
            except IdentityUndecided:  # which is in the log
                self.presence.standby = False
                self._trouble.failed()
            except (BrokerUnavailable, *CONNECTION_TROUBLE) as error:
                self._is_troubled("the database is away" if is_away(error) else str(error))
            finally:
                self.presence.subscribed = False
                self.tried.set()
            await _wait(stop, max(self._trouble.pause or SLOT_POLL, self._takeovers.pause))

    @property
    def away_for(self) -> float | None:
        """Seconds for which it could neither listen nor stand by, if so."""
        return self._trouble.away_for

    def _is_well(self) -> None:
        self._trouble.worked()
        self._said.clear()

    def _is_troubled(self, why: str) -> None:
        """Say each reason once, until it is well again."""
        self._trouble.failed()
        if why not in self._said:
            _log.warning("ota_status_listener_disconnected", error=why, slot=self._slot)
        self._said.add(why)

    async def _listen(self, stop: asyncio.Event, lock: slots.Lock, installation: str) -> None:
        client_id = f"{self._settings.mqtt_client_id or f'rollwave-{installation}'}-{self._slot}"
        shared = f"$share/rollwave-{installation}/{STATUS_FILTER}"
        # Several slots share the load; a single one needs nothing that a broker might not have.
        topic_filter = STATUS_FILTER if self._settings.listener_slots == 1 else shared
        last = await lock.announce()
        async with (
            Session.connect(self._broker, client_id, persistent=True, manual_ack=True, buffer=LOOKAHEAD) as session,
            self._takeovers.watch(session, client_id, lock, stop),
        ):
            await self._take_in(session, stop, lock, topic_filter, last)
        if not stop.is_set():
            raise BrokerUnavailable("the session with the broker, or the slot's lock, was lost")

    async def _take_in(
        self, session: Session, stop: asyncio.Event, lock: slots.Lock, topic_filter: str, last: str | None
    ) -> None:
        inbox = Inbox(self._settings.report_batch, self._settings.report_batch_wait)
        # What waits in the broker comes before its answer to a subscription: messages are taken in meanwhile.
        holding = asyncio.create_task(_close_after(self._hold_on(session, lock, topic_filter, last), inbox))
        feeding = [
            holding,
            asyncio.create_task(_close_after(_read(session, inbox), inbox)),
            asyncio.create_task(_close_after(stop.wait(), inbox)),
            asyncio.create_task(_close_after(self._answerer.run(), inbox)),
        ]
        if self._slot == 0:
            feeding.append(asyncio.create_task(drops.watch(self._broker)))
        try:
            await pipeline.run(inbox, lambda batch: self._commit(session, batch), stop)
            if holding.done() and not stop.is_set():
                holding.result()
        finally:
            for task in feeding:
                task.cancel()
            await asyncio.gather(*feeding, return_exceptions=True)
            await self._concluder.cancel()
            metrics.report_lag.set(0)

    async def _hold_on(self, session: Session, lock: slots.Lock, topic_filter: str, last: str | None) -> None:
        """Subscribe, say that we listen, and keep the slot until it is lost."""
        subscribing = asyncio.create_task(self._subscribe(session, topic_filter, last))
        try:
            while not (await asyncio.wait({subscribing}, timeout=slots.PULSE))[0]:
                await lock.keep()
            subscribing.result()
        finally:
            subscribing.cancel()
        await lock.beat(topic_filter)
        _log.info(
            "ota_status_listener_subscribed",
            topic=topic_filter,
            slot=self._slot,
            session_present=session.session_present,
        )
        self._is_well()
        self.presence.subscribed = True
        self.tried.set()
        await lock.listen(topic_filter)
        self.presence.subscribed = False

    async def _subscribe(self, session: Session, topic_filter: str, last: str | None) -> None:
        # Also where the broker remembers us: it may have kept the session and not the subscription.
        await session.subscribe(topic_filter)
        if last is not None and last != topic_filter and session.session_present:
            # There was another number of slots.
            await session.unsubscribe(last, last.replace(STATUS_FILTER, ASK_FILTER))
        try:
            # Devices may ask what they should be doing, where the broker lets us hear them.
            await session.subscribe(topic_filter.replace(STATUS_FILTER, ASK_FILTER))
        except BrokerUnavailable as error:
            if not session.connected:
                raise
            _log.warning("ota_questions_refused", error=str(error))

    async def _commit(self, session: Session, batch: Batch) -> None:
        with trace("batch"):
            await reach(Failpoint.RECEIVED)
            with self._precedence.hearing(len(batch.messages)):
                touched = await self._intake.take_in(batch.messages, behind=batch.behind)
            await reach(Failpoint.REPORTS_COMMITTED)
            await session.acknowledge_all(batch.messages)
            await reach(Failpoint.ACKNOWLEDGED)
            for due in touched:
                self._concluder.begin(due)


async def _read(session: Session, inbox: Inbox) -> None:
    async for incoming in session.messages():
        await inbox.put(incoming)


async def _close_after(work: Awaitable[object], inbox: Inbox) -> None:
    try:
        await work
    finally:
        inbox.close()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
