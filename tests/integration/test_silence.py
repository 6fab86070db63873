"""Devices that do not report: sent to again, then failed with a reason, so that every campaign ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.upkeep import deadlines
from rollwave.engine.worker.tick import Ticker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import encode_report
from rollwave.settings import Settings
from rollwave.store import listeners
from rollwave.store.database import Pool
from tests.engine import (
    Command,
    Connection,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    device_row,
    devices,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.support import end, eventually

PROGRESS_TIMEOUT_SECONDS = 0.6
SETTINGS = {"OTA_PROGRESS_TIMEOUT": str(PROGRESS_TIMEOUT_SECONDS), "OTA_MAX_ATTEMPTS": "3"}


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_many_silent_devices_of_a_stopped_campaign_are_failed_in_several_sweeps(
    pool: Pool, host: Connection
) -> None:
    number = deadlines.MAX_OVERDUE_PER_LOOK + 3
    names = [f"dev-{each}" for each in range(number)]
    rules: dict[str, Any] = {
        "abort_threshold": 1.0,
        "progress_timeout": PROGRESS_TIMEOUT_SECONDS,
        "answer_timeout": PROGRESS_TIMEOUT_SECONDS,
        "max_attempts": 1,
    }
    campaign = await insert_campaign(host, names, status="ABORTED", **rules)
    await mark_sent(host, campaign, names)
    await host.execute("UPDATE ota_device_status SET due_at = now()")
    ticker = Ticker(pool, CommandSession(Broker.from_url("mqtt://localhost:1")), Settings())
    async with listeners.acquire_slot(pool, 0) as lock:
        assert lock is not None
        await lock.announce()
        listening = asyncio.create_task(lock.listen("", lambda: None))

        async def begun() -> bool:
            await ticker.tick(quietly=True)
            return "FAILED" in await breakdown(host, campaign)

        await eventually(begun, timeout=20, what="deadlines run")
        assert await breakdown(host, campaign) == {"FAILED": number}, "in one tick"
        await end(listening)


async def test_silent_devices_are_sent_to_three_times_then_fail(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        campaign = await insert_campaign(host, 4, abort_threshold=1.0)
        await eventually(lambda: fleet.commands, what="some commands are sent")
        await host.execute("UPDATE firmware_versions SET version = 'edited', file_url = 'https://edited.invalid/'")
        await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 0, 4)
    for device in ("dev-1", "dev-2", "dev-3", "dev-4"):
        commands = [command for command in fleet.commands if command.device == device]
        assert [command.attempt for command in commands] == [1, 2, 3]
        gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(commands)]
        assert all(gap > PROGRESS_TIMEOUT_SECONDS * 0.8 for gap in gaps)
        row = await device_row(host, campaign, device)
        assert row["status"] == "FAILED"
        assert row["error_message"]
        assert row["completed_at"]
    assert len({command.body for command in fleet.commands}) == 1, "one body for all attempts of a campaign"
    attempts = await host.fetch(
        "SELECT device_id, (detail ->> 'attempt')::int AS attempt FROM ota_campaign_history"
        " WHERE event = 'attempt_failed' ORDER BY 1, 2"
    )
    assert [tuple(row) for row in attempts] == [(f"dev-{n}", attempt) for n in range(1, 5) for attempt in (1, 2, 3)]


async def test_silent_devices_trip_the_guardrail_as_any_failure_does(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        campaign = await insert_campaign(host, 12, rollout_rate=3, max_in_flight=3)
        await wait_until_ended(host, campaign, "ABORTED")
    found = await breakdown(host, campaign)
    assert found["SKIPPED"] == 12 - found["FAILED"] >= 6
    assert {command.device for command in fleet.commands} == {f"dev-{n}" for n in range(1, found["FAILED"] + 1)}


async def test_progress_keeps_a_device_alive(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        campaign = await insert_campaign(
            host, ["moving", "repeating", "mute"], abort_threshold=1.0, progress_timeout=5.0, max_attempts=2
        )

        async def mute_has_failed() -> bool:
            return bool((await device_row(host, campaign, "mute"))["status"] == "FAILED")

        for progress in itertools.count(1):
            fleet.report("moving", campaign, "DOWNLOADING", progress=min(99, progress))
            fleet.report("repeating", campaign, "INSTALLING", progress=50)
            if await mute_has_failed():
                break
            await asyncio.sleep(0.1)
        for device in ("moving", "repeating"):
            fleet.report(device, campaign, "SUCCESS")
        await wait_until_ended(host, campaign)
        assert fleet.times_sent(campaign) == {"moving": 1, "repeating": 1, "mute": 2}
    assert await campaign_row(host, campaign) == ("COMPLETED", 2, 1)


async def test_a_device_that_reports_late_is_counted_by_its_report(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def answer(command: Command) -> list[bytes]:
        match command.device, command.attempt:
            case "third-time", 3:
                return [encode_report(command.campaign, "SUCCESS")]
            case "half-way", 1:
                return [encode_report(command.campaign, "INSTALLING", 90)]
            case "half-way", 2:
                return [encode_report(command.campaign, "SUCCESS", attempt=2)]
            case "of-old", 2:
                return [encode_report(command.campaign, "SUCCESS", attempt=1)]
            case "of-old", 3:
                return [encode_report(command.campaign, "FAILED", error="no space", attempt=3)]
        return []

    async with devices(broker.url, answer) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        campaign = await insert_campaign(host, ["third-time", "half-way", "of-old"], abort_threshold=1.0)
        await wait_until_ended(host, campaign)
        assert fleet.times_sent(campaign) == {"third-time": 3, "half-way": 2, "of-old": 3}
    assert await campaign_row(host, campaign) == ("COMPLETED", 2, 1)
    assert (await device_row(host, campaign, "of-old"))["error_message"] == "no space", "attempt 1 had ended by then"


async def test_a_failure_that_a_device_reports_is_final(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        devices(broker.url, answer_with("FAILED")) as fleet,
        worker(database, broker.url, tmp_path / "log", **SETTINGS),
    ):
        campaign = await insert_campaign(host, 3, abort_threshold=1.0)
        await wait_until_ended(host, campaign)
        await insert_campaign(host, 1, tenant="south")
        await eventually(lambda: len(fleet.commands) == 4, what="the engine has gone on")
        assert set(fleet.times_sent(campaign).values()) == {1}


async def test_an_aborted_campaign_ends_without_sending_again(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        campaign = await insert_campaign(host, 20, rollout_rate=5, progress_timeout=1.5)
        await eventually(lambda: len(fleet.commands_of(campaign)) >= 5, what="some commands are sent")
        fleet.report("dev-1", campaign, "FAILED")
        await eventually(lambda: is_aborted(host, campaign), what="aborted")
        sent = len(fleet.commands_of(campaign))
        fleet.report("dev-2", campaign, "SUCCESS")
        await wait_until_ended(host, campaign, "ABORTED")
        assert len(fleet.commands_of(campaign)) <= sent + 5, "no more than the devices claimed before the abort"
        assert set(fleet.times_sent(campaign).values()) == {1}
        assert await campaign_row(host, campaign) == ("ABORTED", 1, len(fleet.commands_of(campaign)) - 1)
    assert await breakdown(host, campaign) == {
        "SUCCESS": 1,
        "FAILED": len(fleet.commands_of(campaign)) - 1,
        "SKIPPED": 20 - len(fleet.commands_of(campaign)),
    }


async def is_aborted(host: Connection, campaign: int) -> bool:
    return (await campaign_row(host, campaign))[0] == "ABORTED"


async def test_a_campaigns_own_timeouts_override_the_settings(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "600", "OTA_MAX_ATTEMPTS": "5"}
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **settings):
        quick = await insert_campaign(host, 2, abort_threshold=1.0, progress_timeout=0.5, max_attempts=2)
        patient = await insert_campaign(host, 2)
        await wait_until_ended(host, quick)
        assert set(fleet.times_sent(quick).values()) == {2}
        assert set(fleet.times_sent(patient).values()) == {1}
    assert await breakdown(host, patient) == {"DOWNLOADING": 2}


async def test_rows_set_in_progress_by_sql_end_too(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **SETTINGS):
        async with host.transaction():
            campaign = await insert_campaign(host, ["left-1", "left-2", "un/sendable"], abort_threshold=1.0)
            await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE device_id <> 'left-2'")
            await host.execute("UPDATE ota_device_status SET status = 'INSTALLING' WHERE device_id = 'left-2'")
        await wait_until_ended(host, campaign)
        assert [command.attempt for command in fleet.commands_of(campaign) if command.device == "left-1"] == [2, 3]
    assert await campaign_row(host, campaign) == ("COMPLETED", 0, 3)
