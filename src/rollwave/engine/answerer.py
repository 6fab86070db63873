"""Devices that ask what they should be doing are told their command again, or that there is none.

A device asks when it comes back to a broker that has forgotten it. A whole fleet may come back at once, so answers are
paced and questions wait in a bounded line; one that does not fit is dropped, and the device asks again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from rollwave import metrics
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.publisher import Publisher
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import NOTHING_TO_DO
from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.outage import is_outage

_log = get_logger("answerer")

MAX_WAITING = 20_000
"""Questions that wait for an answer, at most."""

STEPS = 10
"""Times a second that answers go out."""


class Answerer:
    """Answers questions at ``ROLLWAVE_ANSWER_RATE`` a second, each device once however often it asked."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._step = max(1, settings.answer_rate // STEPS)
        self._publisher = Publisher(Broker.from_settings(settings))
        self._waiting: dict[tuple[TenantId, DeviceId], None] = {}
        self._asked = asyncio.Event()

    def ask(self, tenant_id: TenantId, device_id: DeviceId) -> None:
        """Note that a device has asked."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting[tenant_id, device_id] = None
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
                await asyncio.sleep(1 / STEPS)

    async def _answer_some(self) -> None:
        await reach(Failpoint.ANSWERING)
        session = await self._publisher.session()
        asking = list(self._waiting)[: self._step]
        by_tenant: dict[TenantId, list[DeviceId]] = defaultdict(list)
        for tenant_id, device_id in asking:
            by_tenant[tenant_id].append(device_id)
        for tenant_id, device_ids in by_tenant.items():
            await self._answer(session, tenant_id, device_ids)
        for each in asking:
            self._waiting.pop(each, None)
        if not self._waiting:
            self._asked.clear()

    async def _answer(self, session: Session, tenant_id: TenantId, device_ids: list[DeviceId]) -> None:
        async with tenant_transaction(self._pool, tenant_id) as connection:
            current = await executions.current(connection, tenant_id, device_ids)
        for device_id in device_ids:
            topic = command_topic(tenant_id, device_id)
            doing = current.get(device_id)
            if doing is None:
                await session.publish(topic, NOTHING_TO_DO)
            else:
                await session.publish(topic, doing.body, attempt=doing.attempt, expires_in=doing.seconds_left)
        metrics.questions.labels("command").inc(len(current))
        metrics.questions.labels("nothing").inc(len(device_ids) - len(current))
