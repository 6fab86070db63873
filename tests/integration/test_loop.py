"""A worker's loop: when it looks at a campaign, and how campaigns share its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignRef
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine import failpoints
from rollwave.engine.dispatch.claim import Claims
from rollwave.engine.dispatch.session import Batch, CommandSession
from rollwave.engine.failpoints import Failpoint
from rollwave.engine.operations import start_campaign
from rollwave.engine.retry import retry_failed
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.worker import tick
from rollwave.engine.worker.loop import CampaignLoop
from rollwave.engine.worker.tick import Turns
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import TENANT, Connection, breakdown, campaign_ref, connect, insert_campaign, make_claims, mark_sent
from tests.support import eventually, our_records

HOUR = 3600.0


pytestmark = pytest.mark.usefixtures("listener_subscribed")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@asynccontextmanager
async def loop_running(pool: Pool, broker: EmbeddedBroker, settings: Settings, **options: Any) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    async with CommandSession(Broker.from_url(broker.url)) as command_session:
        running = asyncio.create_task(CampaignLoop(pool, command_session, settings, stopping, **options).run())
        try:
            yield
        finally:
            stopping.set()
            await running


async def listens(host: Connection) -> bool:
    count: int = await host.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %rollwave_due%'")
    return count > 0


async def test_starting_a_campaign_wakes_the_workers(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(host, 3, status="CREATED")
    async with loop_running(pool, broker, Settings(OTA_TICK_INTERVAL=HOUR), ask_every_seconds=HOUR):
        await eventually(lambda: listens(host), what="listening for wake-ups")
        assert await breakdown(host, campaign) == {"PENDING": 3}
        await start_campaign(pool, TENANT, campaign, actor="test")
        await eventually(lambda: sent(host, campaign, 1), timeout=20, what="the first of them sent")


async def test_a_change_of_a_running_campaign_wakes_the_workers_too(
    pool: Pool, host: Connection, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tick, "LONGEST_REST_SECONDS", HOUR)
    campaign = await insert_campaign(host, 2, abort_threshold=1.0)
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    await host.execute("UPDATE ota_campaigns SET failed = 1, succeeded = 0, downloading = 1 WHERE id = $1", campaign)
    await host.execute("UPDATE ota_device_status SET status = 'FAILED', due_at = NULL WHERE device_id = 'dev-2'")
    async with loop_running(pool, broker, Settings(OTA_TICK_INTERVAL=HOUR), ask_every_seconds=HOUR):
        await eventually(lambda: listens(host), what="listening for wake-ups")
        looked_at = "SELECT active_at IS NOT NULL FROM ota_campaigns WHERE id = $1"
        await eventually(lambda: host.fetchval(looked_at, campaign), what="looked at")
        await retry_failed(pool, TENANT, campaign, actor="test")
        sent_again = "SELECT sent_attempt = 2 FROM ota_device_status WHERE device_id = 'dev-2'"
        await eventually(lambda: host.fetchval(sent_again), timeout=20, what="sent to again")


async def test_a_stop_ends_a_loop_that_has_nothing_to_do(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    async with (
        asyncio.timeout(20),
        loop_running(pool, broker, Settings(OTA_TICK_INTERVAL=HOUR), ask_every_seconds=HOUR),
    ):
        await eventually(lambda: listens(host), what="listening for wake-ups")


async def test_a_campaign_is_looked_at_again_on_schedule_without_a_wake_up(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    """A tick of 16 seconds has 20 steps of 80 devices."""
    campaign = await insert_campaign(host, 150, status="CREATED", rollout_rate=1600)
    async with loop_running(pool, broker, Settings(OTA_TICK_INTERVAL=16), ask_every_seconds=HOUR):
        await eventually(lambda: listens(host), what="listening for wake-ups")
        await start_campaign(pool, TENANT, campaign, actor="test")
        await eventually(
            lambda: sent(host, campaign, 150), timeout=8, what="two steps, half a tick before the next question"
        )


async def sent(host: Connection, campaign: int, number: int) -> bool:
    return (await breakdown(host, campaign)).get("DOWNLOADING", 0) >= number


@pytest.mark.parametrize("kind", [TypeError, ValueError, KeyError])
async def test_a_programming_error_while_looking_at_campaigns_ends_no_worker(
    pool: Pool, host: Connection, broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    left = 3

    async def fail(point: Failpoint) -> None:
        nonlocal left
        if point is Failpoint.ASKING_WHAT_IS_DUE and left:
            left -= 1
            raise kind("a fault of our own")

    failpoints.arm(fail)
    try:
        campaign = await insert_campaign(host, 3)
        async with loop_running(pool, broker, Settings(OTA_TICK_INTERVAL=0.1)):
            await eventually(lambda: sent(host, campaign, 3), timeout=20, what="all are sent to")
    finally:
        failpoints.arm(None)
    [record] = [record for record in our_records(caplog) if record.levelname == "ERROR"]
    assert (record.message, bool(record.exc_info)) == ("ota_tick_failed", True)


async def test_a_long_campaign_does_not_delay_a_short_one(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    large = [await insert_campaign(host, 4000, rollout_rate=1_000_000) for _ in range(4)]
    small = await insert_campaign(host, 5)
    async with loop_running(pool, broker, Settings(ROLLWAVE_CLAIM_BATCH=20), turns=Turns(seconds=0.05)):
        await eventually(lambda: sent(host, small, 5), timeout=30, what="the small command is sent")
        for each in large:
            found = await breakdown(host, each)
            assert found["PENDING"] > 0, "the short campaign did not wait for it"
            assert found.get("DOWNLOADING", 0) > 0, "its turn is over"


async def test_each_step_of_a_pace_interval_sends_its_share(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 1000, rollout_rate=1000)
    claiming = make_claims(pool, Settings(OTA_TICK_INTERVAL=HOUR), steps=20)
    first, then = [await claiming.claim(campaign_ref(campaign)) for _ in range(2)]
    assert (len(first.commands), len(then.commands)) == (50, 0)
    assert 0.9 * HOUR / 20 < then.retry_in <= HOUR / 20
    await host.execute("UPDATE ota_campaigns SET pace_opened_at = pace_opened_at - interval '30 min'")
    assert len((await claiming.claim(campaign_ref(campaign))).commands) == 500, (
        "half the interval is over, and fifty devices were sent to"
    )


async def test_a_campaign_that_only_waits_for_its_devices_returns_the_next_time_to_look(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 2)
    upkeep = Upkeep(pool, Settings())
    assert (await upkeep.look_after(campaign_ref(campaign))).idle_seconds == 0, "both need a command"
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    assert 3500 < (await upkeep.look_after(campaign_ref(campaign))).idle_seconds <= 3600, "until the first deadline"
    await host.execute("UPDATE ota_device_status SET due_at = now() WHERE device_id = 'dev-2'")
    assert (await upkeep.look_after(campaign_ref(campaign))).idle_seconds == 0, "a deadline has passed"
    await host.execute("UPDATE ota_device_status SET status = 'PENDING', due_at = NULL WHERE device_id = 'dev-2'")
    assert (await upkeep.look_after(campaign_ref(campaign))).idle_seconds == 0, "one was set back by a host"


async def test_a_campaign_that_only_waits_for_its_devices_makes_no_claim(
    pool: Pool, host: Connection, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_claims = 0

    async def counted(claiming: Claims, each: CampaignRef) -> Batch:
        nonlocal make_claims
        make_claims += 1
        return await claim(claiming, each)

    claim = Claims.claim
    monkeypatch.setattr(Claims, "claim", counted)
    campaign = await insert_campaign(host, 2)
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    async with CommandSession(Broker.from_url(broker.url)) as command_session:
        ticker = tick.Ticker(pool, command_session, Settings())
        assert await asyncio.wait_for(ticker.tick(), 5) > 0, "the call does not wait for them"
        assert make_claims == 0
        await host.execute("UPDATE ota_device_status SET due_at = NULL, status = 'PENDING' WHERE device_id = 'dev-2'")
        await ticker.tick()
    assert make_claims > 0
    assert await host.fetchval("SELECT attempt FROM ota_device_status WHERE device_id = 'dev-2'") == 2


async def test_devices_of_an_aborted_campaign_are_skipped_in_several_turns(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    turns = Turns(seconds=0.01, in_parallel=1, skipped_per_batch=5)
    aborted = await insert_campaign(host, 2000, status="ABORTED")
    small = await insert_campaign(host, 5)
    async with loop_running(pool, broker, Settings(), turns=turns):
        await eventually(lambda: sent(host, small, 1), timeout=30, what="the small command is sent")
        assert (await breakdown(host, aborted))["PENDING"] > 0, "the other campaign did not wait for it"
        await eventually(lambda: all_are(host, aborted, "SKIPPED"), timeout=60, what="the rest skipped")


async def all_are(host: Connection, campaign: int, status: str) -> bool:
    return (await breakdown(host, campaign)).keys() == {status}


async def test_a_cancelled_loop_leaves_nothing_running(
    database: str, pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    await insert_campaign(host, 3)
    async with (
        connect(database) as other,
        CommandSession(Broker.from_url(broker.url)) as command_session,
        other.transaction(),
    ):
        await other.execute("LOCK TABLE ota_device_status IN ACCESS EXCLUSIVE MODE")
        before = asyncio.all_tasks()
        running = asyncio.create_task(CampaignLoop(pool, command_session, Settings(), asyncio.Event()).run())
        # Not on the connection that holds the lock: pg_stat_activity is read once in a transaction.
        await eventually(lambda: waits_for_a_lock(host), what="a batch is claimed")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        left = {
            task for task in asyncio.all_tasks() - before if "KeyedTasks" in repr(task) or "CampaignLoop" in repr(task)
        }
        assert left == set()


async def waits_for_a_lock(host: Connection) -> bool:
    found: int = await host.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return found > 0
