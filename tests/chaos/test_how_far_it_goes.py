"""How far a campaign goes: not past its rate, its cap or its wave, whoever works on it and however it ends."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.dispatcher import Dispatcher
from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.mqtt.client import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool, create_pool
from tests.auditor import record_commits, recorded_commits
from tests.engine import (
    Command,
    Connection,
    breakdown,
    connect,
    devices,
    due,
    ends,
    insert_campaign,
    says,
    succeeds,
    worker,
)
from tests.support import eventually

WORKERS = 4


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def released_together(pool: Pool, settings: Settings, campaign: int, started: asyncio.Event) -> None:
    """Workers that dispatch at the same instant, again and again, until cancelled."""
    barrier = asyncio.Barrier(WORKERS)
    dice = random.Random(4)

    async def work(publisher: Publisher) -> None:
        dispatcher = Dispatcher(pool, publisher, settings)
        while True:
            await barrier.wait()
            await dispatcher.dispatch(due(campaign))
            started.set()
            await asyncio.sleep(dice.uniform(0, settings.tick_interval / 5))

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work(await stack.enter_async_context(Publisher(Broker.from_settings(settings)))))


async def test_on_a_barrier_neither_rate_nor_cap_is_passed_in_any_commit(
    database: str, host: Connection, broker: EmbeddedBroker
) -> None:
    rate, cap, total = 7, 10, 140
    settings = Settings(OTA_TICK_INTERVAL=0.1, MQTT_BROKER_URL=broker.url)
    await record_commits(host)
    loop = asyncio.get_running_loop()

    def takes_its_time(command: Command) -> Sequence[bytes]:
        if int(command.device.removeprefix("dev-")) % 2:
            return succeeds(command)
        loop.call_later(3 * settings.tick_interval, fleet.report, command.device, command.campaign, "SUCCESS")
        return ()

    async with create_pool(database, size=12) as pool, devices(broker.url, takes_its_time) as fleet:
        listening = asyncio.create_task(Listener(pool, settings, slot=0).run())
        campaign = await insert_campaign(host, total, rollout_rate=rate, max_in_flight=cap)
        started = asyncio.Event()
        working = asyncio.create_task(released_together(pool, settings, campaign, started))
        try:
            await started.wait()
            await ends(host, campaign)
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)
    commits = await recorded_commits(host, campaign)
    assert max(each.in_flight for each in commits) == cap
    windows = [list(each) for _, each in itertools.groupby(commits, key=lambda each: each.window)]
    went = [after[-1].claimed - before[-1].claimed for before, after in itertools.pairwise(windows)]
    assert max(windows[0][-1].claimed, *went) <= rate
    assert sum(went) + windows[0][-1].claimed == total
    gaps = [after[0].window - before[0].window for before, after in itertools.pairwise(windows)]
    assert min(gaps) >= timedelta(seconds=settings.tick_interval)


@pytest.mark.parametrize(
    ("rules", "before", "most"),
    [
        ({"max_in_flight": 8}, 8, 8),
        ({"max_in_flight": 8, "abort_min_completed": 5}, 8, 8 + 4),
        ({"rollout_strategy": "canary", "canary_percent": 5.0}, 10, 10),
        ({"rollout_strategy": "canary", "canary_percent": 5.0, "max_in_flight": 4}, 4, 4),
        ({"rollout_rate": 6}, 6, 0),
    ],
    ids=["cap", "cap, some failures allowed", "wave", "cap within a wave", "rate"],
)
async def test_a_firmware_that_is_all_bad_reaches_few(
    database: str,
    host: Connection,
    broker: EmbeddedBroker,
    tmp_path: Path,
    rules: dict[str, Any],
    before: int,
    most: int,
) -> None:
    tick = timedelta(seconds=0.4)
    settings = {"OTA_TICK_INTERVAL": str(tick.total_seconds()), "ROLLWAVE_CLAIM_BATCH": "5"}
    async with (
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "listens", **settings),
        worker(database, broker.url, tmp_path / "stands by", logs="ota_tick_start", **settings),
    ):
        campaign = await insert_campaign(host, 200, **({"rollout_rate": 500} | rules))
        await eventually(lambda: len(fleet.of(campaign)) >= before, what="as many as may go")
        until = time.monotonic() + 2 * tick.total_seconds()
        await eventually(lambda: time.monotonic() > until, what="and time for more")
        fleet.answer = says("FAILED")
        for command in fleet.of(campaign):
            fleet.report(command.device, campaign, "FAILED")
        await ends(host, campaign, "ABORTED")
        row = await host.fetchrow("SELECT started_at, completed_at FROM ota_campaigns WHERE id = $1", campaign)
    assert row is not None
    reached = len(fleet.times_sent(campaign))
    ticks = (row["completed_at"] - row["started_at"]) // tick + 1
    assert before <= reached <= (most or rules["rollout_rate"] * ticks)
    assert await breakdown(host, campaign) == {"FAILED": reached, "SKIPPED": 200 - reached}
