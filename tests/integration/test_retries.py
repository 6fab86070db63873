"""Failed attempts: which failures are retried, after which delay, and what is written about each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.upkeep.look import Upkeep
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    TENANT,
    Command,
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    incoming_report,
    insert_campaign,
    make_dispatch,
    mark_sent,
    subscribed_listener,
    wait_until_ended,
    worker,
)
from tests.in_process import ingest, long_subscribed_listener, move_times_back
from tests.support import eventually

PROGRESS_TIMEOUT_SECONDS = 0.6
ANSWER_TIMEOUT = 4.0
"""Seconds within which a device that answers at once is heard, even on a slow machine."""


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def failed_attempts(host: Connection, device: str) -> list[tuple[int, str, bool]]:
    """(attempt, cause, final) of each failed attempt, in the order written."""
    rows = await host.fetch(
        "SELECT (detail ->> 'attempt')::int AS attempt, detail ->> 'cause' AS cause,"
        " (detail ->> 'final')::bool AS final"
        " FROM ota_campaign_history WHERE event = 'attempt_failed' AND device_id = $1 ORDER BY id",
        device,
    )
    return [tuple(row) for row in rows]


async def is_now(host: Connection, campaign: int, device: str, **expected: Any) -> bool:
    row = await device_row(host, campaign, device)
    return all(row[name] == value for name, value in expected.items())


async def test_a_reported_failure_is_retried_and_counted_after_the_last_attempt(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def answer(command: Command) -> Sequence[bytes]:
        if command.device == "mends" and command.attempt == 2:
            return [encode_report(command.campaign, "SUCCESS")]
        return [
            encode_report(command.campaign, "DOWNLOADING", attempt=command.attempt),
            encode_report(command.campaign, "FAILED", error="flash", attempt=command.attempt),
        ]

    delay = 3.0
    async with devices(broker.url, answer) as fleet, worker(database, broker.url, tmp_path / "log"):
        campaign = await insert_campaign(
            host, ["mends", "never"], retry_on=["reported"], retry_delay=delay, max_attempts=2, abort_threshold=1.0
        )
        for device in ("mends", "never"):
            await eventually(lambda: is_now(host, campaign, device, failed_attempt=1), what="failed once")  # noqa: B023
        assert await campaign_row(host, campaign) == ("RUNNING", 0, 0), (
            "a device is not counted as failed while it has an attempt left"
        )
        assert await breakdown(host, campaign) == {"DOWNLOADING": 2}
        assert await failed_attempts(host, "never") == [(1, "reported", False)]
        await wait_until_ended(host, campaign)
        for device in ("mends", "never"):
            sent = [each for each in fleet.commands_of(campaign) if each.device == device]
            assert [each.attempt for each in sent] == [1, 2]
            assert sent[1].at - sent[0].at >= delay / 2, "half the delay is fixed, the rest is random"
    assert await campaign_row(host, campaign) == ("COMPLETED", 1, 1)
    assert await failed_attempts(host, "mends") == [(1, "reported", False)]
    assert await failed_attempts(host, "never") == [(1, "reported", False), (2, "reported", True)]
    row = await device_row(host, campaign, "never")
    assert (row["status"], row["error_message"]) == ("FAILED", "flash")
    assert (await device_row(host, campaign, "mends"))["error_message"] is None


async def test_reports_of_an_attempt_after_its_failure_change_nothing(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log"):
        campaign = await insert_campaign(
            host, ["talks", "other"], retry_on=["reported"], retry_delay=100.0, abort_threshold=0.5
        )
        await eventually(lambda: len(fleet.commands_of(campaign)) == 2, what="sent")
        fleet.report("talks", campaign, "INSTALLING", progress=70)
        fleet.report("talks", campaign, "FAILED")
        await eventually(lambda: is_now(host, campaign, "talks", failed_attempt=1), what="failed once")
        before = await device_row(host, campaign, "talks")
        for attempt in (None, 1):
            for status in ("DOWNLOADING", "FAILED", "SUCCESS"):
                fleet.send(status_topic(TENANT, "talks"), encode_report(campaign, status, 80, "more", attempt))
        fleet.report("other", campaign, "INSTALLING")
        await eventually(lambda: is_now(host, campaign, "other", status="INSTALLING"), what="all is taken in")
        assert await device_row(host, campaign, "talks") == before
        await host.execute("UPDATE ota_device_status SET due_at = now() WHERE device_id = 'talks'")
        await eventually(lambda: fleet.times_sent(campaign)["talks"] == 2, what="sent again")
        fleet.send(status_topic(TENANT, "talks"), encode_report(campaign, "FAILED", attempt=1))
        fleet.send(status_topic(TENANT, "talks"), encode_report(campaign, "SUCCESS", attempt=2))
        fleet.report("other", campaign, "SUCCESS")
        await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 2, 0)
    assert await failed_attempts(host, "talks") == [(1, "reported", False)]


async def test_a_failure_that_is_the_first_report_has_the_cause_rejected(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def answer(command: Command) -> Sequence[bytes]:
        if command.attempt == 2:
            return [encode_report(command.campaign, "SUCCESS")]
        if command.device == "at-once":  # Usually in one batch.
            return [encode_report(command.campaign, status) for status in ("DOWNLOADING", "FAILED")]
        return [encode_report(command.campaign, "DOWNLOADING" if command.device == "begins" else "FAILED")]

    async with devices(broker.url, answer) as fleet, worker(database, broker.url, tmp_path / "log"):
        campaign = await insert_campaign(
            host, ["rejects", "begins", "at-once"], retry_on=["rejected"], retry_delay=0.1, abort_threshold=1.0
        )
        await eventually(lambda: is_now(host, campaign, "begins", heard_attempt=1), what="it has begun")
        fleet.report("begins", campaign, "FAILED")
        await wait_until_ended(host, campaign)
        assert fleet.times_sent(campaign) == {"rejects": 2, "begins": 1, "at-once": 1}
    assert await campaign_row(host, campaign) == ("COMPLETED", 1, 2)
    assert await failed_attempts(host, "rejects") == [(1, "rejected", False)]
    assert await failed_attempts(host, "begins") == [(1, "reported", True)]
    assert await failed_attempts(host, "at-once") == [(1, "reported", True)]


@pytest.mark.parametrize("listed", ["no_answer", "no_progress"])
async def test_silence_before_the_first_report_and_after_it_are_two_causes(
    listed: str, database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def answer(command: Command) -> Sequence[bytes]:
        return [encode_report(command.campaign, "INSTALLING", 10)] if command.device == "no_progress" else []

    async with devices(broker.url, answer) as fleet, worker(database, broker.url, tmp_path / "log"):
        campaign = await insert_campaign(
            host,
            ["no_answer", "no_progress"],
            retry_on=[listed],
            retry_delay=0.0,
            max_attempts=2,
            progress_timeout=PROGRESS_TIMEOUT_SECONDS,
            answer_timeout=ANSWER_TIMEOUT,
            abort_threshold=1.0,
        )
        await wait_until_ended(host, campaign)
        [unlisted] = {"no_answer", "no_progress"} - {listed}
        assert fleet.times_sent(campaign) == {listed: 2, unlisted: 1}
    assert await failed_attempts(host, listed) == [(1, listed, False), (2, listed, True)]
    assert await failed_attempts(host, unlisted) == [(1, unlisted, True)]
    row = await device_row(host, campaign, unlisted)
    timeout = PROGRESS_TIMEOUT_SECONDS if unlisted == "no_progress" else ANSWER_TIMEOUT
    assert row["completed_at"] - row["started_at"] >= timedelta(seconds=timeout)


async def test_a_device_that_keeps_reporting_fails_at_its_device_timeout(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(
        host, ["chatters"], device_timeout=3600.0, progress_timeout=1800.0, max_attempts=50, abort_threshold=1.0
    )
    async with long_subscribed_listener(pool, host):
        await mark_sent(host, campaign, ["chatters"])
        await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
        for _ in range(3):
            await move_times_back(host, campaign, 1150, looked_at=True)
            await ingest(pool, [incoming_report("chatters", campaign, "DOWNLOADING")])
            await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
            row = await device_row(host, campaign, "chatters")
            assert (row["status"], row["attempt"], row["failed_attempt"]) == ("DOWNLOADING", 1, 0)
            assert row["due_at"] <= row["started_at"] + timedelta(seconds=3600), "no report extends the device timeout"
        await move_times_back(host, campaign, 200, looked_at=True)
        await ingest(pool, [incoming_report("chatters", campaign, "DOWNLOADING")])
        await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert (await device_row(host, campaign, "chatters"))["status"] == "FAILED"
    assert await failed_attempts(host, "chatters") == [(1, "overdue", True)]
    assert await campaign_row(host, campaign) == ("RUNNING", 0, 1)


async def test_no_retry_is_made_that_would_begin_after_the_device_timeout(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def answer(command: Command) -> Sequence[bytes]:
        return [encode_report(command.campaign, "FAILED", error="flash")] if command.device == "says" else []

    in_all = ANSWER_TIMEOUT + 1
    async with devices(broker.url, answer) as fleet, worker(database, broker.url, tmp_path / "log"):
        campaign = await insert_campaign(
            host,
            ["says", "silent"],
            retry_on=["rejected", "no_answer"],
            retry_delay=60.0,
            progress_timeout=ANSWER_TIMEOUT,
            device_timeout=in_all,
            abort_threshold=1.0,
        )
        await wait_until_ended(host, campaign)
        assert fleet.times_sent(campaign) == {"says": 1, "silent": 1}
    for device, cause in (("says", "rejected"), ("silent", "no_answer")):
        assert await failed_attempts(host, device) == [(1, cause, False)]
        row = await device_row(host, campaign, device)
        assert row["failed_reason"] == "overdue"
        assert timedelta(seconds=in_all) <= row["completed_at"] - row["started_at"] <= timedelta(seconds=in_all + 5)
    assert (await device_row(host, campaign, "says"))["error_message"] == "flash"
    given_up = await host.fetch(
        "SELECT device_id, detail ->> 'cause' FROM ota_campaign_history WHERE event = 'given_up'"
    )
    assert {tuple(row) for row in given_up} == {("says", "overdue"), ("silent", "overdue")}


async def test_without_a_listener_no_device_fails(
    pool: Pool, host: Connection, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.1")
    progress_timeout = 1.0
    campaign = await insert_campaign(
        host, 3, progress_timeout=progress_timeout, retry_delay=0.0, max_attempts=2, abort_threshold=1.0
    )

    async with subscribed_listener(pool):
        await run_ota_campaign_tick(pool)

    async def overdue_by_far() -> bool:
        await run_ota_campaign_tick(pool)
        return bool(await host.fetchval("SELECT min(due_at) < now() - interval '1.5 seconds' FROM ota_device_status"))

    await eventually(overdue_by_far, what="every deadline is long past, and ticks went on")
    for device in ("dev-1", "dev-2", "dev-3"):
        row = await device_row(host, campaign, device)
        assert (row["status"], row["attempt"], row["failed_attempt"]) == ("DOWNLOADING", 1, 0)
    engine = [
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool)),
        asyncio.create_task(run_ota_status_listener(pool)),
    ]
    try:
        async with devices(broker.url) as fleet:
            await wait_until_ended(host, campaign)
            assert set(fleet.times_sent(campaign).values()) == {1}, (
                "devices that subscribed late see the second attempt"
            )
    finally:
        for task in engine:
            task.cancel()
        await asyncio.gather(*engine, return_exceptions=True)
    assert await campaign_row(host, campaign) == ("COMPLETED", 0, 3)
    since = await host.fetchval("SELECT listening_since FROM rollwave_listener_slots")
    first = await host.fetchval("SELECT min(at) FROM ota_campaign_history WHERE event = 'attempt_failed'")
    assert first - since >= timedelta(seconds=progress_timeout), (
        "their progress timeout began when a listener was subscribed"
    )
    assert await failed_attempts(host, "dev-1") == [(1, "no_answer", False), (2, "no_answer", True)]


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_past_its_device_timeout_gets_no_further_attempt(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 2, device_timeout=3600.0)
    await mark_sent(host, campaign, ["dev-1", "dev-2"])
    await host.execute("UPDATE ota_device_status SET failed_attempt = 1, failed_reason = 'no_answer', due_at = now()")
    await host.execute("UPDATE ota_device_status SET started_at = now() - interval '2 hours' WHERE device_id = 'dev-1'")
    async with CommandSession(Broker.from_url(broker.url)) as session:
        await make_dispatch(pool, session, Settings()).dispatch(campaign_ref(campaign))
    assert [(await device_row(host, campaign, device))["attempt"] for device in ("dev-1", "dev-2")] == [1, 2]
