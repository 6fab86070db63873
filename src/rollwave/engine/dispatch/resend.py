"""Devices that ask what they should be doing are told their command again, or that there is none.

A device asks when it comes back to a broker that has forgotten it. A whole fleet may come back at once, so answers are
paced and questions wait in a bounded line; one that does not fit is dropped, and the device asks again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from itertools import islice, takewhile
from typing import TypeAlias

from rollwave import metrics
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable, MessageTooLarge
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

MAX_WAITING = 20_000
"""Questions that wait for an answer, at most."""

MAX_TRIES = 5
"""Times that a question is tried to be answered; then the device asks again."""

STEPS_PER_SECOND = 10
"""Times a second that answers go out."""

NOTHING = Doing(NOTHING_TO_DO, None, None)

Asking: TypeAlias = tuple[TenantId, DeviceId]


class Resender:
    """Answers questions at ``ROLLWAVE_ANSWER_RATE`` a second, each device once however often it asked."""

    def __init__(self, pool: Pool, settings: Settings, problems: Problems | None = None) -> None:
        self._pool = pool
        self._patience = settings.publish_timeout
        self._step = max(1, settings.answer_rate // STEPS_PER_SECOND)
        self._publisher = CommandSession(Broker.from_settings(settings), problems)
        self._waiting: dict[Asking, int] = {}
        """Times that each was tried, in the order in which they are answered."""
        self._asked = asyncio.Event()

    def ask(self, tenant_id: TenantId, device_id: DeviceId) -> None:
        """Note that a device has asked."""
        self._wait((tenant_id, device_id), tries=0)

    def _wait(self, asking: Asking, *, tries: int) -> None:
        """Have the question answered, after those that wait already; it was tried so many times."""
        if len(self._waiting) < MAX_WAITING and tries < MAX_TRIES:
            self._waiting.setdefault(asking, tries)
            self._asked.set()
        else:
            metrics.questions.labels("dropped").inc()

    async def run(self) -> None:
        """Answer until cancelled."""
        async with self._publisher:
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
        """Answer the questions of a step.

        An answer that the broker did not take waits behind the other questions and then goes alone: it may be the one
        over which the broker ends the session.
        """
        await reach(Failpoint.ANSWERING)
        session = await self._publisher.session()
        asking = {each: self._waiting.pop(each) for each in self._next()}
        if not self._waiting:
            self._asked.clear()
        by_tenant: dict[TenantId, list[DeviceId]] = defaultdict(list)
        for tenant_id, device_id in asking:
            by_tenant[tenant_id].append(device_id)
        answered: set[Asking] = set()
        try:
            for tenant_id, device_ids in by_tenant.items():
                answered |= {(tenant_id, each) for each in await self._answer(session, tenant_id, device_ids)}
        finally:
            for each, tries in asking.items():
                if each not in answered:
                    self._wait(each, tries=tries + 1)

    def _next(self) -> list[Asking]:
        waiting = list(islice(self._waiting.items(), self._step))
        new = [asking for asking, _ in takewhile(lambda each: each[1] == 0, waiting)]
        return new or [waiting[0][0]]

    async def _answer(self, session: Session, tenant_id: TenantId, device_ids: list[DeviceId]) -> list[DeviceId]:
        """Returns the devices whose answer the broker took, or can never take."""
        async with tenant_transaction(self._pool, tenant_id) as connection:
            current = await executions.current(connection, tenant_id, device_ids)
        receipts: dict[DeviceId, Receipt] = {}
        over: list[DeviceId] = []
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
                    over.append(device_id)
        except BrokerUnavailable as error:
            _log.debug("ota_answers_delayed", error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                for receipt in receipts.values():
                    await receipt.settled()
        taken = [device_id for device_id, receipt in receipts.items() if receipt.taken or receipt.refused]
        metrics.questions.labels("command").inc(sum(each in current for each in taken))
        metrics.questions.labels("nothing").inc(sum(each not in current for each in taken))
        return taken + over
