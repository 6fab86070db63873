"""The broker or the database is unavailable, restarts, refuses or freezes: no device fails, and the campaign ends."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.store.migrate import migrate
from tests.engine import (
    TICKS,
    Connection,
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_for_ticks,
    wait_until_ended,
    worker,
)
from tests.servers import Mosquitto, crashable_postgres
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def unfailed(host: Connection, campaign: int) -> None:
    assert (await campaign_row(host, campaign))[0] == "RUNNING"
    assert (await campaign_row(host, campaign))[2] == 0
    assert "FAILED" not in await breakdown(host, campaign)


async def test_a_worker_waits_for_a_broker_that_is_unavailable_at_start(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    broker.stop()
    campaign = await insert_campaign(host, 20)
    settings = {"OTA_PROGRESS_TIMEOUT": "1", "OTA_MAX_ATTEMPTS": "10"}
    async with worker(database, broker.url, tmp_path / "log", logs=TICKS, **settings) as running:
        await wait_for_ticks(running)
        assert await breakdown(host, campaign) == {"PENDING": 20}
        assert len(events(running, "ota_mqtt_publish_failed")) == 1, "it is logged once, not at every tick"
        broker.start()
        async with devices(broker.url, always_succeeds):
            await wait_until_ended(host, campaign)
        assert len(events(running, "ota_status_listener_subscribed")) == 1
    assert await campaign_row(host, campaign) == ("COMPLETED", 20, 0)


async def test_no_command_is_sent_before_a_listener_is_subscribed(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Devices that answer at once are heard, also if a worker is new to the broker or the broker lost its sessions."""
    async with devices(broker.url, always_succeeds) as fleet:
        for number in range(3):
            campaign = await insert_campaign(host, 10)
            settings = {"ROLLWAVE_MQTT_CLIENT_ID": f"new-{number}"}
            async with worker(database, broker.url, tmp_path / str(number), logs=TICKS, **settings) as it:
                await wait_until_ended(host, campaign)
                broker.stop()
                await eventually(lambda: not fleet.connected.is_set(), what="gone")
                await eventually(lambda: events(it, "ota_status_listener_disconnected"), what="gone for the engine")
                broker.start()
                await eventually(fleet.connected.is_set, what="back")
                await wait_until_ended(host, await insert_campaign(host, 10), timeout=45)
    assert set(Counter((each.campaign, each.device) for each in fleet.commands).values()) == {1}


async def test_a_campaign_ends_after_a_broker_restarts_without_its_state(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "1", "OTA_MAX_ATTEMPTS": "10"}
    async with (
        devices(broker.url, always_succeeds) as fleet,
        worker(database, broker.url, tmp_path / "log", **settings) as it,
    ):
        campaign = await insert_campaign(host, 400, rollout_rate=20)
        for outage in (1, 2):
            await eventually(lambda: len(fleet.commands) > 30 * outage, what="some commands are sent")  # noqa: B023
            await eventually(lambda: len(events(it, "ota_status_listener_subscribed")) == outage, what="listening")  # noqa: B023
            broker.stop()
            await wait_for_ticks(it)
            await unfailed(host, campaign)
            broker.start()
        await wait_until_ended(host, campaign, timeout=60)
        assert [event["session_present"] for event in events(it, "ota_status_listener_subscribed")] == [False] * 3
    assert await campaign_row(host, campaign) == ("COMPLETED", 400, 0)


async def test_a_campaign_ends_after_a_broker_restarts_with_its_state(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "1", "OTA_MAX_ATTEMPTS": "10"}
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(database, mosquitto.url, tmp_path / "log", **settings) as it,
    ):
        campaign = await insert_campaign(host, 400, rollout_rate=20)
        await eventually(lambda: len(fleet.commands) > 30, what="some commands are sent")
        mosquitto.stop()
        await wait_for_ticks(it)
        await unfailed(host, campaign)
        mosquitto.start()
        await wait_until_ended(host, campaign, timeout=60)
        assert [event["session_present"] for event in events(it, "ota_status_listener_subscribed")] == [False, True]
    assert await campaign_row(host, campaign) == ("COMPLETED", 400, 0)


async def test_a_campaign_ends_after_a_broker_froze(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_PUBLISH_TIMEOUT": "0.5", "ROLLWAVE_LEASE": "2"}
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(database, mosquitto.url, tmp_path / "log", **settings) as it,
    ):
        campaign = await insert_campaign(host, 120, rollout_rate=10)
        await eventually(lambda: len(fleet.commands) > 10, what="some commands are sent")
        mosquitto.send_signal(signal.SIGSTOP)
        try:
            await eventually(lambda: events(it, "ota_mqtt_publish_failed"), what="nothing is acknowledged")
            await unfailed(host, campaign)
            assert (await breakdown(host, campaign))["PENDING"] > 10
        finally:
            mosquitto.send_signal(signal.SIGCONT)
        await wait_until_ended(host, campaign, timeout=60)
        assert {command.attempt for command in fleet.commands} == {1}
    assert await campaign_row(host, campaign) == ("COMPLETED", 120, 0)


async def all_marked(host: Connection, campaign: int) -> None:
    async def marked() -> bool:
        return (await breakdown(host, campaign)).keys() == {"DOWNLOADING"}

    await eventually(marked, what="all sent to")


async def deadlines_pass(host: Connection) -> None:
    async def ended() -> bool:
        sql = "SELECT bool_and(started_at < now() - interval '2.5 seconds') FROM ota_device_status"
        return bool(await host.fetchval(sql))

    await eventually(ended, what="every device's deadline has passed")


async def test_time_without_a_listener_does_not_fail_a_device(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """The engine is down for longer than the progress timeout. Reports wait in the broker."""
    settings = {"OTA_PROGRESS_TIMEOUT": "2", "OTA_MAX_ATTEMPTS": "1"}
    async with devices(mosquitto.url) as fleet:
        campaign = await insert_campaign(host, 30, rollout_rate=30)
        async with worker(database, mosquitto.url, tmp_path / "first", **settings) as first:
            await all_marked(host, campaign)
            first.process.kill()
            await first.process.wait()
        for command in fleet.commands:
            fleet.report(command.device, campaign, "SUCCESS")
        await fleet.wait_until_delivered()
        await deadlines_pass(host)
        async with worker(database, mosquitto.url, tmp_path / "second", **settings):
            await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 30, 0)


async def test_time_without_a_broker_does_not_fail_a_device(
    database: str, host: Connection, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "2", "OTA_MAX_ATTEMPTS": "1"}
    async with devices(mosquitto.url) as fleet, worker(database, mosquitto.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, 30, rollout_rate=30)
        await all_marked(host, campaign)
        mosquitto.stop()
        for command in fleet.commands:
            fleet.report(command.device, campaign, "SUCCESS")
        await deadlines_pass(host)
        await unfailed(host, campaign)
        mosquitto.start()
        await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 30, 0)


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server that a test may crash."""
    with crashable_postgres() as server:
        await migrate(server.url)
        yield server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_campaign_ends_after_a_database_restart(
    mode: str, own_server: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        devices(mosquitto.url, always_succeeds) as fleet,
        worker(own_server.url, mosquitto.url, tmp_path / "log", ROLLWAVE_LEASE="2") as it,
    ):
        async with connect(own_server.url) as host:
            campaign = await insert_campaign(host, 150, rollout_rate=15)
        for outage in (1, 2):
            await eventually(lambda: len(fleet.commands) > 40 * outage, what="some commands are sent")  # noqa: B023
            own_server.stop("immediate" if mode == "immediate" else "fast")
            await eventually(lambda: len(events(it, "ota_database_unavailable")) >= outage, what="noticed")  # noqa: B023
            own_server.start()
        async with connect(own_server.url) as host:
            await wait_until_ended(host, campaign, timeout=60)
            assert await campaign_row(host, campaign) == ("COMPLETED", 150, 0)
            assert await breakdown(host, campaign) == {"SUCCESS": 150}
        assert {command.attempt for command in fleet.commands} == {1}
        assert it.process.returncode is None
