"""A campaign never exceeds its rate, its cap or its wave, whichever workers process it and however it ends."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.worker.worker import make_listener
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool, create_pool
from tests.auditor import record_commits, recorded_commits
from tests.engine import (
    Command,
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_ref,
    connect,
    devices,
    insert_campaign,
    make_dispatch,
    wait_until_ended,
    worker,
)
from tests.support import eventually

WORKERS = 4


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def released_together(pool: Pool, settings: Settings, campaign: int, started: asyncio.Event) -> None:
    """Let several workers dispatch at the same moment, again and again, until cancelled."""
    barrier = asyncio.Barrier(WORKERS)
    dice = random.Random(4)

    async def work(session: CommandSession) -> None:
        dispatch = make_dispatch(pool, session, settings)
        while True:
            await barrier.wait()
            await dispatch.dispatch(campaign_ref(campaign))
            started.set()
            await asyncio.sleep(dice.uniform(0, settings.tick_interval / 5))

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work(await stack.enter_async_context(CommandSession(Broker.from_settings(settings)))))


async def test_many_workers_started_together_never_exceed_rate_or_cap_in_any_commit(
    database: str, host: Connection, broker: EmbeddedBroker
) -> None:
    rate, cap, total = 7, 10, 140
    settings = Settings(OTA_TICK_INTERVAL=0.1, MQTT_BROKER_URL=broker.url)
    await record_commits(host)
    loop = asyncio.get_running_loop()

    def takes_its_time(command: Command) -> Sequence[bytes]:
        if int(command.device.removeprefix("dev-")) % 2:
            return always_succeeds(command)
        loop.call_later(3 * settings.tick_interval, fleet.report, command.device, command.campaign, "SUCCESS")
        return ()

    async with create_pool(database, size=12) as pool, devices(broker.url, takes_its_time) as fleet:
        listening = asyncio.create_task(make_listener(pool, settings).run())
        campaign = await insert_campaign(host, total, rollout_rate=rate, max_in_flight=cap)
        started = asyncio.Event()
        working = asyncio.create_task(released_together(pool, settings, campaign, started))
        try:
            await started.wait()
            await wait_until_ended(host, campaign)
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)
    commits = await recorded_commits(host, campaign)
    assert max(each.in_flight for each in commits) == cap
    intervals = [list(each) for _, each in itertools.groupby(commits, key=lambda each: each.interval)]
    went = [after[-1].claimed - before[-1].claimed for before, after in itertools.pairwise(intervals)]
    assert max(intervals[0][-1].claimed, *went) <= rate
    assert sum(went) + intervals[0][-1].claimed == total
    gaps = [after[0].interval - before[0].interval for before, after in itertools.pairwise(intervals)]
    assert min(gaps) >= timedelta(seconds=settings.tick_interval)


@dataclass(frozen=True, slots=True)
class Bad:
    """A campaign whose firmware fails on every device.

    ``before``: the maximum number of devices sent to before any has reported.
    ``most``: the maximum in the end. None: as many as its rate allowed until then.
    """

    rules: dict[str, Any]
    before: int
    most: int | None


ALL_BAD = {
    "cap": Bad({"max_in_flight": 8}, 8, 8),
    "cap, some failures allowed": Bad({"max_in_flight": 8, "abort_min_completed": 5}, 8, 8 + 4),
    "wave": Bad({"rollout_strategy": "canary", "canary_percent": 5.0}, 10, 10),
    "cap within a wave": Bad({"rollout_strategy": "canary", "canary_percent": 5.0, "max_in_flight": 4}, 4, 4),
    "rate": Bad({"rollout_rate": 6}, 6, None),
}


async def test_a_bad_firmware_reaches_no_more_devices_than_the_limits_allow(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    tick = timedelta(seconds=0.5)
    settings = {"OTA_TICK_INTERVAL": str(tick.total_seconds()), "ROLLWAVE_CLAIM_BATCH": "5"}
    async with (
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "listens", **settings),
        worker(database, broker.url, tmp_path / "stands by", logs="ota_tick_start", **settings),
    ):
        campaigns = {
            name: await insert_campaign(host, 200, **({"rollout_rate": 500} | bad.rules))
            for name, bad in ALL_BAD.items()
        }
        for name, campaign in campaigns.items():
            await eventually(lambda: len(fleet.commands_of(campaign)) >= ALL_BAD[name].before, what=name)  # noqa: B023
        until = time.monotonic() + 2 * tick.total_seconds()
        await eventually(lambda: time.monotonic() > until, what="and time for more")
        fleet.answer = answer_with("FAILED")
        for command in list(fleet.commands):
            fleet.report(command.device, command.campaign, "FAILED")
        for campaign in campaigns.values():
            await wait_until_ended(host, campaign, "ABORTED")
    for name, campaign in campaigns.items():
        reached = len(fleet.times_sent(campaign))
        row = await host.fetchrow("SELECT started_at, completed_at FROM ota_campaigns WHERE id = $1", campaign)
        assert row is not None
        bad, ticks = ALL_BAD[name], (row["completed_at"] - row["started_at"]) // tick + 1
        assert bad.before <= reached <= (bad.most or bad.rules["rollout_rate"] * ticks), name
        assert await breakdown(host, campaign) == {"FAILED": reached, "SKIPPED": 200 - reached}, name
