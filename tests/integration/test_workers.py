"""Several worker processes on one database and one broker: pace, lease, slot and shutdown.

Tests that kill a listener use Mosquitto: the embedded broker may hang when a client with a persistent session dies with
unacknowledged deliveries.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import (
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto
from tests.support import Running, eventually

LEASE = 1.0
TAKEOVER = LEASE + 10
LONG_LEASE_SECONDS = "60"
"""A lease longer than any batch takes, even on a slow machine, so that it ends only if its worker was killed."""


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@asynccontextmanager
async def workers(
    number: int, database: str, broker_url: str, folder: Path, **settings: str
) -> AsyncIterator[list[Running]]:
    """This many workers, one of which listens. A killed worker's slot is taken as soon as possible."""
    settings = {"ROLLWAVE_LEASE": str(LEASE), **settings}
    async with AsyncExitStack() as stack:
        starting = [
            stack.enter_async_context(
                worker(database, broker_url, folder / str(each), logs="ota_tick_start", **settings)
            )
            for each in range(number)
        ]
        running = await asyncio.gather(*starting)
        await eventually(lambda: any(listens(each) for each in running), what="one of them listens")
        yield running


def listens(running: Running) -> bool:
    return bool(events(running, "ota_status_listener_subscribed"))


async def watch_pace(host: Connection, campaign: int, intervals: dict[datetime, int]) -> None:
    """Record how many devices each interval permitted, until cancelled."""
    while True:
        row = await host.fetchrow("SELECT pace_opened_at, pace_used FROM ota_campaigns WHERE id = $1", campaign)
        assert row is not None
        if row["pace_opened_at"] is not None:
            intervals[row["pace_opened_at"]] = max(intervals.get(row["pace_opened_at"], 0), row["pace_used"])
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("number", [2, 4])
async def test_the_rate_holds_for_a_campaign_with_any_number_of_workers(
    number: int, database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    rate, tick, total = 20, 0.6, 110
    intervals: dict[datetime, int] = {}
    async with (
        connect(database) as second,
        devices(broker.url, always_succeeds) as fleet,
        workers(number, database, broker.url, tmp_path, OTA_TICK_INTERVAL=str(tick), ROLLWAVE_LEASE=LONG_LEASE_SECONDS),
    ):
        campaign = await insert_campaign(host, total, rollout_rate=rate)
        watching = asyncio.create_task(watch_pace(second, campaign, intervals))
        try:
            await wait_until_ended(host, campaign)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert set(fleet.times_sent(campaign).values()) == {1}
    assert len(fleet.commands_of(campaign)) == total
    # The number that the database permitted, exactly.
    assert list(intervals.values()) == [rate] * (total // rate) + [total % rate]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(intervals))]
    assert all(gap >= timedelta(seconds=tick) for gap in gaps)
    # The result: each device was sent to in an interval with room.
    started = await host.fetch("SELECT started_at FROM ota_device_status ORDER BY started_at")
    opened = [interval for interval in sorted(intervals) for _ in range(rate)]
    assert all(row["started_at"] >= interval for row, interval in zip(started, opened, strict=False))
    assert [int(command.device.removeprefix("dev-")) <= rate for command in fleet.commands_of(campaign)[:rate]] == [
        True
    ] * rate


async def test_campaigns_of_several_tenants_run_side_by_side(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        devices(broker.url, always_succeeds) as fleet,
        workers(2, database, broker.url, tmp_path, ROLLWAVE_LEASE=LONG_LEASE_SECONDS) as running,
    ):
        numbers = {
            (tenant, await insert_campaign(host, 40, tenant=tenant, rollout_rate=15))
            for tenant in ("north", "south", "west")
            for _ in range(2)
        }
        for tenant, number in numbers:
            await wait_until_ended(host, number, tenant=tenant)
            assert await campaign_row(host, number, tenant) == ("COMPLETED", 40, 0)
            assert len(fleet.commands_of(number, tenant)) == 40
        assert not any('"level": "error"' in each.output() for each in running)


async def test_the_other_workers_continue_when_one_is_killed(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        workers(3, database, mosquitto.url, tmp_path, OTA_TICK_INTERVAL="0.1") as running,
    ):
        campaign = await insert_campaign(host, 400, rollout_rate=20)
        running.sort(key=listens)  # The worker that listens ends last.
        for number, victim in enumerate(running[:0:-1], start=1):
            await eventually(lambda: len(fleet.commands_of(campaign)) > 100 * number, what="some commands are sent")  # noqa: B023
            victim.process.kill()
        killed = time.monotonic()
        await wait_until_ended(host, campaign, timeout=60)
        sent = fleet.times_sent(campaign)
        assert len(sent) == 400
        assert {command.attempt for command in fleet.commands_of(campaign)} == {1}, (
            "commands are sent again with the same attempt"
        )
        assert time.monotonic() - killed < 400 / 20 * 0.1 + TAKEOVER
    assert await campaign_row(host, campaign) == ("COMPLETED", 400, 0)
    assert await breakdown(host, campaign) == {"SUCCESS": 400}


async def test_a_listener_slot_is_taken_over_with_its_queued_reports(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with devices(mosquitto.url) as fleet, workers(2, database, mosquitto.url, tmp_path) as running:
        campaign = await insert_campaign(host, 50, rollout_rate=50)
        await eventually(lambda: len(fleet.commands_of(campaign)) == 50, what="all sent to")
        first, second = sorted(running, key=listens, reverse=True)
        assert not listens(second)
        first.process.kill()
        await first.process.wait()
        for command in fleet.commands_of(campaign):
            fleet.report(command.device, campaign, "SUCCESS")
        await fleet.wait_until_delivered()
        await eventually(lambda: listens(second), timeout=TAKEOVER, what="taken over")
        await wait_until_ended(host, campaign, timeout=TAKEOVER)
        assert events(second, "ota_status_listener_subscribed")[0]["session_present"]
    assert await campaign_row(host, campaign) == ("COMPLETED", 50, 0)


async def test_listener_slots_are_shared_and_taken_over(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_LISTENER_SLOTS": "3"}
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        workers(2, database, mosquitto.url, tmp_path, **settings) as running,
    ):
        await eventually(lambda: held_slots(*running) == {0, 1, 2}, what="every slot is held")
        campaign = await insert_campaign(host, 150, rollout_rate=10)
        await eventually(lambda: len(fleet.commands_of(campaign)) > 50, what="some commands are sent")
        first, second = sorted(running, key=lambda each: len(held_slots(each)))
        second.process.kill()
        await wait_until_ended(host, campaign, timeout=30)
        await eventually(lambda: held_slots(first) == {0, 1, 2}, timeout=TAKEOVER, what="all slots inherited")
    assert await campaign_row(host, campaign) == ("COMPLETED", 150, 0)


def held_slots(*running: Running) -> set[int]:
    return {event["slot"] for each in running for event in events(each, "ota_status_listener_subscribed")}


async def test_one_worker_holds_more_listener_slots_than_its_pool_has_connections(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_LISTENER_SLOTS": "4", "ROLLWAVE_DATABASE_POOL_SIZE": "3"}
    async with (
        devices(broker.url, always_succeeds),
        worker(database, broker.url, tmp_path / "log", **settings) as running,
    ):
        await eventually(lambda: held_slots(running) == {0, 1, 2, 3}, what="every slot is held")
        await wait_until_ended(host, await insert_campaign(host, 10))


async def test_a_worker_drains_on_sigterm_and_loses_no_report(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url, answer_with("DOWNLOADING", "SUCCESS")) as fleet:
        campaign = await insert_campaign(host, 600, rollout_rate=30)
        for number in range(3):
            settings = {"OTA_TICK_INTERVAL": "0.1", "ROLLWAVE_LEASE": "30"}
            async with worker(database, broker.url, tmp_path / str(number), **settings) as running:
                await eventually(lambda: len(fleet.commands_of(campaign)) > 150 * (number + 1), what="sent")  # noqa: B023
                running.process.terminate()
                assert await asyncio.wait_for(running.process.wait(), 30) == 0, running.output()
            claimed = await host.fetchval(
                "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND attempt > 0"
            )
            assert claimed == 0, "devices that were claimed are sent to and marked"
        async with worker(database, broker.url, tmp_path / "last"):
            await wait_until_ended(host, campaign, timeout=60)
        assert set(fleet.times_sent(campaign).values()) == {1}
    assert await campaign_row(host, campaign) == ("COMPLETED", 600, 0)


CLAIMED = "SELECT count(*) FROM ota_device_status WHERE status = 'PENDING' AND attempt > 0"
MANY, BATCH = 6000, 3000


async def test_claims_of_a_killed_worker_are_sent_within_the_lease_and_ten_seconds(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_CLAIM_BATCH": str(BATCH)}
    async with (
        devices(mosquitto.url) as fleet,
        workers(2, database, mosquitto.url, tmp_path, **settings) as running,
    ):
        other, victim = sorted(running, key=listens)
        other.process.send_signal(signal.SIGSTOP)  # So that it is this worker's turn.
        campaign = await insert_campaign(host, MANY, rollout_rate=MANY)
        await eventually(lambda: fleet.commands_of(campaign), what="a batch is on its way")
        victim.process.kill()
        killed = time.monotonic()
        await victim.process.wait()
        left = await host.fetchval(CLAIMED)
        assert left > 0, "it was killed in the middle of a batch"
        other.process.send_signal(signal.SIGCONT)
        marked = "SELECT count(*) = $1 FROM ota_device_status WHERE status = 'DOWNLOADING'"
        await eventually(
            lambda: host.fetchval(marked, MANY), timeout=TAKEOVER, what=f"{left} claimed ones and the rest"
        )
        assert time.monotonic() - killed < TAKEOVER
        assert {command.attempt for command in fleet.commands_of(campaign)} == {1}


async def test_a_worker_finishes_its_batch_on_sigterm(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_CLAIM_BATCH": str(BATCH)}
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **settings) as running:
        campaign = await insert_campaign(host, MANY, rollout_rate=MANY)
        await eventually(lambda: fleet.commands_of(campaign), what="a batch is on its way")
        running.process.terminate()
        assert await asyncio.wait_for(running.process.wait(), 30) == 0, running.output()
        assert await host.fetchval(CLAIMED) == 0
        marked = (await breakdown(host, campaign))["DOWNLOADING"]
        await eventually(lambda: len(fleet.commands_of(campaign)) == marked, what="all that is marked has arrived")
        assert marked in {BATCH, MANY}, "batches are finished, or never started"
        assert set(fleet.times_sent(campaign).values()) == {1}


async def test_sigterm_ends_an_idle_worker_and_a_worker_without_a_slot(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with workers(2, database, broker.url, tmp_path, OTA_TICK_INTERVAL="60") as running:
        for each in running:
            each.process.terminate()
        codes = await asyncio.wait_for(asyncio.gather(*(each.process.wait() for each in running)), 10)
    assert codes == [0, 0]
