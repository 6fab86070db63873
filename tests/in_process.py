"""Parts of the engine that run inside the test's process."""

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
from tests.engine import Connection, subscribed_listener


async def ingest(pool: Pool, batch: Sequence[Incoming]) -> None:
    """Let the engine apply one batch of reports, as if it came from the broker."""
    await asyncio.wait_for(Ingest(pool, Settings()).take_in(batch), 10)


@asynccontextmanager
async def running_ticker(pool: Pool, broker_url: str, tick: float) -> AsyncIterator[Ticker]:
    """The sending part of a worker, whose ticks the test calls. ``tick``: seconds of a pace interval."""
    async with CommandSession(Broker.from_url(broker_url)) as session:
        ticker = Ticker(pool, session, Settings(OTA_TICK_INTERVAL=tick))
        yield ticker
        await ticker.drain()


@asynccontextmanager
async def long_subscribed_listener(pool: Pool, host: Connection) -> AsyncIterator[None]:
    """Hold a slot as a listener that has been subscribed for a year, so that deadlines run."""
    async with subscribed_listener(pool):
        await host.execute(
            "UPDATE rollwave_listener_slots SET listening_since = now() - interval '1 year',"
            " subscribed_at = now() - interval '1 year'"
        )
        yield


async def move_times_back(host: Connection, campaign: int, seconds: float, *, looked_at: bool = False) -> None:
    """Move all times of a campaign back. ``looked_at``: as if workers had looked at the campaign all the time."""
    back = f"make_interval(secs => {seconds})"
    await host.execute(
        f"UPDATE ota_device_status SET due_at = due_at - {back}, started_at = started_at - {back}"
        " WHERE campaign_id = $1",
        campaign,
    )
    await host.execute(
        f"UPDATE ota_campaigns SET active_since = active_since - {back},"
        f" active_at = CASE WHEN $2 THEN now() - interval '10 s' ELSE active_at - {back} END WHERE id = $1",
        campaign,
        looked_at,
    )
