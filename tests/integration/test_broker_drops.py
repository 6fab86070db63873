"""The task that reads the broker's count of dropped messages can be cancelled at any moment."""

from __future__ import annotations

import asyncio
import gc

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest import broker_drops
from rollwave.mqtt.broker import Broker
from tests.integration.mqtt_contract.test_cancellation import delays, lost, nobody
from tests.support import eventually


async def test_a_cancelled_watcher_ends_and_leaves_no_task(broker: EmbeddedBroker) -> None:
    before = asyncio.all_tasks()
    for at in (Broker.from_url(broker.url), await nobody()):
        assert [delay for delay in delays() if await lost(broker_drops.watch(at), delay)] == []
    await eventually(lambda: asyncio.all_tasks() == before, timeout=5, what="no task is left")
    gc.collect()  # A lost socket is collected here, with a warning.
