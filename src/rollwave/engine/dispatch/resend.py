"""Answers devices that ask what they should do: sends their command again, or the answer that there is none.

A device asks when it reconnects to a broker that has forgotten its session. A whole fleet may reconnect at once, so
answers are sent at a limited rate, and questions wait in a bounded queue. If the queue is full, a question is dropped,
and the device asks again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import TypeAlias

from rollwave import metrics
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.engine.dispatch.permission import closed_to, unless_stopped
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable, MessageTooLarge, NotFound
from rollwave.log import get_logger
from rollwave.log_once import Problems
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.payload import NOTHING_TO_DO
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Doing
from rollwave.store.outage import is_outage

_log = get_logger("answerer")

MAX_QUESTIONS = 20_000
"""Maximum number of questions that wait for an answer."""

MAX_TRIES = 5
"""Maximum number of tries to answer one question. After that it is dropped."""

STEPS_PER_SECOND = 10
"""Number of times per second at which answers are sent."""

NOTHING = Doing(NOTHING_TO_DO, None, None, None)

Question: TypeAlias = tuple[TenantId, DeviceId]
"""The device that asks."""


class Resender:
    """Answers ``ROLLWAVE_ANSWER_RATE`` devices per second. A device that asks again while it waits gets one answer."""

    def __init__(self, pool: Pool, settings: Settings, problems: Problems | None = None) -> None:
        """``problems``: those of the process, as for :class:`CommandSession`."""
        self._pool = pool
        self._settings = settings
        self._publish_timeout = settings.publish_timeout
        self._answers_per_step = max(1, settings.answer_rate // STEPS_PER_SECOND)
        self._command_session = CommandSession(Broker.from_settings(settings), problems)
        self._tries: dict[Question, int] = {}
        """The number of tries so far of each waiting question, in the order in which they are answered."""
        self._asked = asyncio.Event()

    def ask(self, tenant_id: TenantId, device_id: DeviceId) -> None:
        """Queue the question of a device. It is dropped if the queue is full."""
        self._queue((tenant_id, device_id), tries=0)

    def _queue(self, question: Question, *, tries: int) -> None:
        """Put the question at the end of the queue, with the number of its tries."""
        if len(self._tries) < MAX_QUESTIONS and tries < MAX_TRIES:
            self._tries.setdefault(question, tries)
            self._asked.set()
        else:
            metrics.questions.labels("dropped").inc()

    async def run(self) -> None:
        """Answer until cancelled."""
        async with self._command_session:
            while True:
                await self._asked.wait()
                try:
                    await self._answer_some()
                except BrokerUnavailable as error:
                    _log.debug("ota_answers_delayed", error=str(error))
                except Exception as error:
                    if not is_outage(error):
                        raise
                await asyncio.sleep(1 / STEPS_PER_SECOND)

    async def _answer_some(self) -> None:
        """Answer the questions of one step.

        An answer that the broker did not accept is tried again after the other questions, and alone: it may be the one
        that makes the broker end the session.
        """
        await reach(Failpoint.ANSWERING)
        session = await self._command_session.session()
        questions = {question: self._tries.pop(question) for question in self._next()}
        if not self._tries:
            self._asked.clear()
        by_tenant: dict[TenantId, list[DeviceId]] = defaultdict(list)
        for tenant_id, device_id in questions:
            by_tenant[tenant_id].append(device_id)
        answered: set[Question] = set()
        try:
            for tenant_id, device_ids in by_tenant.items():
                done = await self._answer(session, tenant_id, device_ids)
                answered |= {(tenant_id, device_id) for device_id in done}
        finally:
            for question, tries in questions.items():
                if question not in answered:
                    self._queue(question, tries=tries + 1)

    def _next(self) -> list[Question]:
        """The first questions that were never tried. If there are none, the first question alone."""
        first = list(islice(self._tries.items(), self._answers_per_step))
        new = [question for question, _ in takewhile(lambda each: each[1] == 0, first)]
        return new or [first[0][0]]

    async def _answer(self, session: Session, tenant_id: TenantId, device_ids: list[DeviceId]) -> list[DeviceId]:
        """Returns the devices whose answer the broker accepted or refused, or that is too large for it."""
        current = await self._current(tenant_id, device_ids)
        receipts: dict[DeviceId, Receipt] = {}
        too_large: list[DeviceId] = []

        async def publish() -> None:
            await self._publish(session, tenant_id, device_ids, current, receipts, too_large)

        async def stopped() -> bool:
            return len(await self._permitted(tenant_id, current)) < len(current)

        await unless_stopped(publish(), stopped, session.abort)
        done = [device_id for device_id, receipt in receipts.items() if receipt.taken or receipt.refused]
        metrics.questions.labels("command").inc(sum(device_id in current for device_id in done))
        metrics.questions.labels("nothing").inc(sum(device_id not in current for device_id in done))
        return done + too_large

    async def _current(self, tenant_id: TenantId, device_ids: list[DeviceId]) -> dict[DeviceId, Doing]:
        """The present commands of the devices, as far as their campaigns may send commands again now."""
        async with tenant_transaction(self._pool, tenant_id) as connection:
            current = await executions.current(connection, tenant_id, device_ids)
        return await self._permitted(tenant_id, current)

    async def _permitted(self, tenant_id: TenantId, current: Mapping[DeviceId, Doing]) -> dict[DeviceId, Doing]:
        """Those of the commands that may be sent again now, by the gates of their campaigns and segments."""
        closed: dict[CampaignId, Collection[int] | None] = {}
        if current:
            async with tenant_transaction(self._pool, tenant_id) as connection:
                segments: dict[tuple[CampaignId, int | None], set[int]] = defaultdict(set)
                for doing in current.values():
                    if doing.campaign_id is not None:
                        segments[doing.campaign_id, doing.revision].add(doing.segment)
                for (each, revision), asked in segments.items():
                    key = tenant_id, each
                    with suppress(NotFound):  # deleted meanwhile
                        closed[each] = await closed_to(connection, self._settings, *key, asked, revision=revision)
        return {device_id: doing for device_id, doing in current.items() if _is_open(doing, closed)}

    async def _publish(
        self,
        session: Session,
        tenant_id: TenantId,
        device_ids: list[DeviceId],
        current: Mapping[DeviceId, Doing],
        receipts: dict[DeviceId, Receipt],
        too_large: list[DeviceId],
    ) -> None:
        """Publish the answers and wait for the broker's. Fills ``receipts`` and ``too_large``."""
        try:
            for device_id in device_ids:
                doing = current.get(device_id, NOTHING)
                try:
                    receipts[device_id] = await session.publish(
                        command_topic(tenant_id, device_id),
                        doing.body,
                        attempt=doing.attempt,
                        expires_in=doing.seconds_left,
                    )
                except MessageTooLarge:
                    too_large.append(device_id)
        except BrokerUnavailable as error:
            _log.debug("ota_answers_delayed", error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._publish_timeout):
                for receipt in receipts.values():
                    await receipt.wait()


def _is_open(doing: Doing, closed: Mapping[CampaignId, Collection[int] | None]) -> bool:
    """Whether the command may be sent. ``closed``: the closed segments of each campaign; None: all are."""
    segments = None if doing.campaign_id is None else closed.get(doing.campaign_id)
    return segments is not None and doing.segment not in segments
