"""The database's clock is set back: times that it wrote before lie in the future."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.worker.tick import Ticker
from rollwave.store import listeners
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    breakdown,
    campaign_row,
    connect,
    device_row,
    insert_campaign,
    sent_to,
)
from tests.in_process import ticking
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.mark.usefixtures("heard")
async def test_a_database_clock_set_back_does_not_stop_sending(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 6, rollout_rate=2)
    async with ticking(pool, broker.url, 60) as ticker:
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}, "one window lasts a tick"
        await host.execute("UPDATE ota_campaigns SET pace_opened_at = now() + interval '1 day'")
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}, "and the pace is kept from then on"


async def test_times_in_the_future_after_a_clock_was_set_back_are_corrected(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 3, progress_timeout=5.0, abort_threshold=1.0, max_attempts=1)
    await sent_to(host, campaign, ["dev-1"])
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, due_at = now() + interval '1 day' WHERE device_id <> 'dev-3'"
    )
    await host.execute("UPDATE ota_device_status SET started_at = now() + interval '1 day' WHERE device_id = 'dev-1'")
    await host.execute(
        "UPDATE ota_campaigns SET reconciled_at = now() + interval '1 day', succeeded = 7,"
        " pending = 2, downloading = 1, installing = 0, skipped = 0"
    )
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        await lock.announce()
        await lock.beat("topic")
        await host.execute("UPDATE rollwave_listener_slots SET coming_at = now() + interval '1 day'")
        async with ticking(pool, broker.url, 0.1) as ticker:
            await ticker.tick()
            assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 1}, "sent, though one seems to come"
            assert await campaign_row(host, campaign) == ("RUNNING", 0, 0), "reconciled at once"
            await eventually(lambda: ticked_until(ticker, host, campaign), what="the claimed one is sent, not later")
            await lock.beat("topic")
            await host.execute(
                "UPDATE rollwave_listener_slots SET listening_since = now() + interval '1 day',"
                " subscribed_at = now() + interval '1 day'"
            )
            await lock.beat("topic")
            since = await host.fetchrow(
                "SELECT listening_since < now(), subscribed_at < now() FROM rollwave_listener_slots"
            )
            assert since is not None
            assert tuple(since) == (True, True)
    row = await device_row(host, campaign, "dev-1")
    assert await host.fetchval(
        "SELECT $1 < now() + interval '6 seconds' AND $2 <= now()", row["due_at"], row["started_at"]
    )


async def ticked_until(ticker: Ticker, host: Connection, campaign: int) -> bool:
    await ticker.tick()
    return await breakdown(host, campaign) == {"DOWNLOADING": 3}
