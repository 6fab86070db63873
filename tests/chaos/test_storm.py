"""Workers killed, PostgreSQL crashed, the broker restarted, reports repeated and shuffled: all at once, from a seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.mqtt.payload import encode_report
from rollwave.store.migrate import migrate
from tests.auditor import auditing
from tests.engine import Command, Devices, breakdown, campaign_row, connect, devices, ends, insert_campaign, worker
from tests.servers import Mosquitto, crashable_postgres
from tests.support import Running, eventually

WORKERS = 3
SETTINGS = {"ROLLWAVE_LEASE": "1.5", "OTA_PROGRESS_TIMEOUT": "1.5", "OTA_MAX_ATTEMPTS": "50"}


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server that a test may crash."""
    with crashable_postgres() as server:
        await migrate(server.url)
        yield server


def fate(device: str) -> str:
    """What a device ends as, if everything it says is heard at last: one in ten fails."""
    return "FAILED" if device.endswith("7") else "SUCCESS"


def talkative(dice: random.Random) -> Devices:
    """Devices that repeat themselves, in any order, and now and then miss a command altogether."""

    def answer(command: Command) -> Sequence[bytes]:
        if dice.random() < 0.1:
            return ()
        words = ["DOWNLOADING", "INSTALLING"] * dice.randint(0, 2) + [fate(command.device)] * dice.randint(1, 5)
        dice.shuffle(words)
        return [encode_report(command.campaign, word) for word in words]

    return Devices(answer)


class Crew:
    """Workers, any of which may be killed; another takes its place."""

    def __init__(self, stack: AsyncExitStack, database: str, broker_url: str, folder: Path) -> None:
        self._stack, self._database, self._broker_url, self._folder = stack, database, broker_url, folder
        self._running: list[Running] = []
        self._hired = 0

    async def hire(self) -> None:
        self._hired += 1
        log = self._folder / f"worker-{self._hired}"
        starting = worker(self._database, self._broker_url, log, logs="ota_tick_start", **SETTINGS)
        self._running.append(await self._stack.enter_async_context(starting))

    async def lose_one(self, dice: random.Random) -> None:
        victim = self._running.pop(dice.randrange(len(self._running)))
        victim.process.kill()
        await victim.process.wait()

    def output(self) -> str:
        return "".join(each.read_text() for each in self._folder.glob("worker-*"))


@pytest.mark.parametrize("seed", [1])  # any number does; one that failed belongs here
async def test_every_campaign_ends_as_its_devices_did(
    seed: int, server: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    async with (
        AsyncExitStack() as stack,
        auditing(server.url) as auditor,
        devices(mosquitto.url, talkative(dice).answer) as fleet,
    ):
        crew = Crew(stack, server.url, mosquitto.url, tmp_path)
        async with connect(server.url) as host:
            names = [f"dev-{number}" for number in range(130)]
            north = await insert_campaign(host, names, rollout_rate=2, abort_threshold=1.0)
            south = await insert_campaign(
                host, names, tenant="south", rollout_rate=2, abort_threshold=1.0, max_in_flight=20
            )
        for _ in range(WORKERS):
            await crew.hire()
        for trouble in dice.sample(["kill", "kill", "database", "broker"], 4):
            before = len(fleet.commands)
            await eventually(lambda: len(fleet.commands) > before + 10, timeout=20, what="going on")  # noqa: B023
            if trouble == "kill":
                await crew.lose_one(dice)
                await crew.hire()
            elif trouble == "database":
                await asyncio.to_thread(server.stop, "immediate")
                await asyncio.to_thread(server.start)
            else:
                await asyncio.to_thread(mosquitto.stop)
                await asyncio.to_thread(mosquitto.start)
        async with connect(server.url) as host:
            for campaign, tenant in ((north, "north"), (south, "south")):
                await ends(host, campaign, tenant=tenant, timeout=90)
                assert await campaign_row(host, campaign, tenant) == ("COMPLETED", 117, 13)
                assert await breakdown(host, campaign, tenant) == {"SUCCESS": 117, "FAILED": 13}
            rows = await host.fetch("SELECT device_id, status FROM ota_device_status")
            assert all(row["status"] == fate(row["device_id"]) for row in rows)
    assert auditor.snapshots > 50
    assert "deadlock detected" not in server.log.read_text()
    assert "ota_counters_repaired" not in crew.output(), "never wrong, so never mended"
