"""A worker is frozen for longer than its lease: no command gets a second attempt number, and none is lost."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from rollwave.embedded.broker import EmbeddedBroker
from tests.auditor import auditing
from tests.engine import (
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    insert_campaign,
    never_answers,
    wait_until_ended,
    worker,
)
from tests.support import eventually

SETTINGS = {"ROLLWAVE_LEASE": "1", "OTA_TICK_INTERVAL": "0.1", "OTA_MAX_ATTEMPTS": "50"}


async def test_a_worker_frozen_past_its_lease_sends_no_command_a_second_time(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as host,
        auditing(database),
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "listens", **SETTINGS),
        worker(database, broker.url, tmp_path / "freezes", logs="ota_tick_start", **SETTINGS) as frozen_worker,
    ):
        campaign = await insert_campaign(host, 300, rollout_rate=10)
        for share in (60, 120):
            await eventually(lambda: len(fleet.commands) > share, what="some commands are sent")  # noqa: B023
            frozen_worker.process.send_signal(signal.SIGSTOP)
            asleep = time.monotonic()
            await eventually(lambda: time.monotonic() > asleep + 1.5, what="its lease is over")  # noqa: B023
            frozen_worker.process.send_signal(signal.SIGCONT)
        await wait_until_ended(host, campaign, timeout=60)
        assert await campaign_row(host, campaign) == ("COMPLETED", 300, 0)
        assert {command.attempt for command in fleet.commands} == {1}


async def test_a_worker_frozen_during_an_abort_sends_nothing_after_it_wakes(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as host,
        devices(broker.url, never_answers) as fleet,
        worker(database, broker.url, tmp_path / "listens", **SETTINGS) as awake,
        worker(database, broker.url, tmp_path / "freezes", logs="ota_tick_start", **SETTINGS) as frozen_worker,
    ):
        campaign = await insert_campaign(host, 500, rollout_rate=10)
        await eventually(lambda: len(fleet.commands) > 50, what="some commands are sent")
        for each in (awake, frozen_worker):
            each.process.send_signal(signal.SIGSTOP)
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED'", timeout=30)
        aborted = time.monotonic()
        sent = len(fleet.commands)
        await eventually(lambda: time.monotonic() > aborted + 1.5, what="every lease is over")
        for each in (awake, frozen_worker):
            each.process.send_signal(signal.SIGCONT)

        async def skipped() -> bool:
            return "PENDING" not in await breakdown(host, campaign)

        await eventually(skipped, what="wound down")
        assert len(fleet.commands) <= sent + 20, "at most a batch per worker was already with the broker"
        await eventually(lambda: time.monotonic() > aborted + 4, what="and nothing after it")
        late = [command for command in fleet.commands if command.at > aborted + 3]
        assert late == []
