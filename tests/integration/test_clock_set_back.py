"""The database's clock is set back: times that it wrote before lie in the future."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.broker_refusal import Refusal
from rollwave.domain.execution import LEEWAY
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.worker.tick import Ticker
from rollwave.settings import Settings
from rollwave.store import executions, listeners
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    insert_campaign,
    mark_sent,
)
from tests.in_process import running_ticker
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_database_clock_set_back_does_not_stop_sending(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 6, rollout_rate=2)
    async with running_ticker(pool, broker.url, 60) as ticker:
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2, "PENDING": 4}, "one interval lasts a tick"
        await host.execute("UPDATE ota_campaigns SET pace_opened_at = now() + interval '1 day'")
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}
        await ticker.tick()
        assert await breakdown(host, campaign) == {"DOWNLOADING": 4, "PENDING": 2}, "from then on, the pace is kept"


async def test_times_in_the_future_after_a_clock_was_set_back_are_corrected(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 3, progress_timeout=5.0, abort_threshold=1.0, max_attempts=1)
    await mark_sent(host, campaign, ["dev-1"])
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
        async with running_ticker(pool, broker.url, 0.1) as ticker:
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


async def test_the_longest_possible_waits_are_not_taken_for_times_in_the_future(pool: Pool, host: Connection) -> None:
    """The longest wait of a refused device is ten minutes, and a deadline may be a little longer than its timeout."""
    refused = await insert_campaign(host, 1, progress_timeout=5.0, retry_delay=1.0, retry_delay_max=1.0)
    silent = await insert_campaign(host, 2, progress_timeout=3600.0)
    await host.execute("UPDATE ota_device_status SET attempt = 1, refusals = 16 WHERE campaign_id = $1", refused)
    async with tenant_transaction(pool, TENANT) as connection:
        await executions.release(
            connection,
            TENANT,
            CampaignId(refused),
            [Claimed(DeviceId("dev-1"), 1)],
            delay=60.0,
            refusal=Refusal.REJECTED,
        )
    await mark_sent(host, silent, ["dev-1", "dev-2"])
    set_due = (
        "UPDATE ota_device_status SET due_at = now() + make_interval(secs => $3)"
        " WHERE campaign_id = $1 AND device_id = $2"
    )
    await host.execute(set_due, silent, "dev-1", 3600 * (1 + LEEWAY))
    await host.execute(set_due, silent, "dev-2", 3600 * 1.5)
    before = await due_in(host)
    assert 590 < before[refused, "dev-1"] <= 600, "however often it was refused"
    for campaign in (refused, silent):
        await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
    after = await due_in(host)
    corrected = {key for key in before if after[key] < before[key] - 60}
    assert corrected == {(silent, "dev-2")}


async def due_in(host: Connection) -> dict[tuple[int, str], float]:
    rows = await host.fetch(
        "SELECT campaign_id, device_id, EXTRACT(epoch FROM due_at - now())::float8 AS seconds FROM ota_device_status"
    )
    return {(row["campaign_id"], row["device_id"]): row["seconds"] for row in rows}
