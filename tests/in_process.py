"""Parts of the engine that run inside the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.worker.tick import Ticker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store.database import Pool


async def ingest(pool: Pool, batch: Sequence[Incoming]) -> None:
    """Have the engine apply one batch of reports, as it does when they come from the broker."""
    await asyncio.wait_for(Ingest(pool, Settings()).take_in(batch), 10)


@asynccontextmanager
async def ticking(pool: Pool, broker_url: str, tick: float) -> AsyncIterator[Ticker]:
    """The part of a worker that sends; the test calls each tick. ``tick``: seconds of a pace window."""
    async with CommandSession(Broker.from_url(broker_url)) as session:
        ticker = Ticker(pool, session, Settings(OTA_TICK_INTERVAL=tick))
        yield ticker
        await ticker.drain()
