"""A campaign from rows inserted with psql to COMPLETED or ABORTED, over a real database and broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store.database import Pool
from tests.engine import UNUSED_VERSION, Connection, connect, wait_until_ended
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")


async def insert_campaign(pool: Pool, devices: int, *, rate: int = 10, columns: str = "", values: str = "") -> int:
    """Insert a campaign as a host does, with the contract's columns only."""
    await pool.execute("INSERT INTO tenants (tenant_id) VALUES ('north') ON CONFLICT DO NOTHING")
    firmware = await pool.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256)"
        f" SELECT $1::text, {UNUSED_VERSION}, 'https://files.invalid/fw.bin', '' RETURNING id",
        "north",
    )
    campaign: int = await pool.fetchval(
        f"INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, rollout_rate, status{columns})"
        f" VALUES ('north', 'spring', $1, $2, 'CREATED'{values}) RETURNING id",
        firmware,
        rate,
    )
    await pool.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
        " SELECT 'north', $1, 'dev-' || n FROM generate_series(1, $2) AS n",
        campaign,
        devices,
    )
    await pool.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)
    return campaign


@asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[None]:
    """Run the engine, embedded as in a host. Yields once it listens."""
    started = await pool.fetchval("SELECT now()")
    tasks = [
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.2)),
        asyncio.create_task(run_ota_status_listener(pool)),
    ]
    try:
        await eventually(lambda: _listens_since(pool, started), what="listening")
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def devices(broker: EmbeddedBroker, answer: dict[str, list[str]] | list[str]) -> AsyncIterator[list[Incoming]]:
    """Simulate devices that answer each command with these statuses. Yields the commands received."""
    received: list[Incoming] = []
    async with Session.connect(Broker.from_url(broker.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")

        async def play() -> None:
            async for message in session.messages():
                received.append(message)
                _, tenant, _, device, _ = message.topic.split("/")
                campaign = json.loads(message.payload)["campaign_id"]
                for status in answer.get(device, []) if isinstance(answer, dict) else answer:
                    receipt = await session.publish(status_topic(tenant, device), encode_report(campaign, status))
                    await receipt.acknowledged()

        playing = asyncio.create_task(play())
        try:
            yield received
        finally:
            if playing.done():
                playing.result()  # If no device answered, a lost session is the cause.
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)


async def statuses(pool: Pool, campaign: int) -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT status, count(*) AS n FROM ota_device_status WHERE campaign_id = $1 GROUP BY 1", campaign
    )
    return {row["status"]: row["n"] for row in rows}


async def campaign_row(pool: Pool, campaign: int) -> tuple[str, int, int]:
    row = await pool.fetchrow("SELECT status, succeeded, failed FROM ota_campaigns WHERE id = $1", campaign)
    assert row is not None
    return row["status"], row["succeeded"], row["failed"]


@pytest.mark.usefixtures("settings")
async def test_a_campaign_completes_when_all_devices_succeed(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(pool, 25)
    async with devices(broker, ["DOWNLOADING", "INSTALLING", "SUCCESS"]) as received, running(pool):
        await wait_until_ended(host, campaign, "COMPLETED")
    assert await campaign_row(pool, campaign) == ("COMPLETED", 25, 0)
    assert await statuses(pool, campaign) == {"SUCCESS": 25}
    assert len(received) == 25
    expected = (
        f'{{"campaign_id": {campaign}, "firmware_url": "https://files.invalid/fw.bin", '
        '"version": "2.1.0", "checksum": "", "action": "update"}'
    )
    assert {message.payload for message in received} == {expected.encode()}


@pytest.mark.usefixtures("settings")
async def test_a_failing_campaign_aborts_and_skips_the_remaining_devices(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(pool, 50, columns=", max_in_flight", values=", 10")
    async with devices(broker, ["FAILED"]) as received, running(pool):
        await wait_until_ended(host, campaign, "ABORTED")
        await eventually(lambda: _settled(pool, campaign), what="settled")
    found = await statuses(pool, campaign)
    status, succeeded, failed = await campaign_row(pool, campaign)
    assert (status, succeeded) == ("ABORTED", 0)
    assert found == {"FAILED": len(received), "SKIPPED": 50 - len(received)}
    assert failed == len(received) <= 20


@pytest.mark.usefixtures("settings")
async def test_the_second_wave_waits_for_the_canary(pool: Pool, host: Connection, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(pool, 40, rate=1000, columns=", rollout_strategy", values=", 'canary'")
    async with devices(broker, {}) as received, running(pool):
        await eventually(lambda: len(received) == 2, what="the canary's two devices")
        await eventually(lambda: _sent(pool, campaign, 2), what="marked")
    async with devices(broker, ["SUCCESS"]) as more, running(pool):
        async with Session.connect(Broker.from_url(broker.url)) as session:
            for message in received:
                device = message.topic.split("/")[3]
                report = encode_report(campaign, "SUCCESS")
                await (await session.publish(status_topic("north", device), report)).acknowledged()
        await wait_until_ended(host, campaign, "COMPLETED")
    assert len(more) == 38


async def _settled(pool: Pool, campaign: int) -> bool:
    return bool(await pool.fetchval("SELECT settled_at IS NOT NULL FROM ota_campaigns WHERE id = $1", campaign))


async def _sent(pool: Pool, campaign: int, number: int) -> bool:
    sql = "SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND status = 'DOWNLOADING'"
    return bool(await pool.fetchval(sql, campaign) == number)


async def _listens_since(pool: Pool, moment: datetime) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM rollwave_listener_slots WHERE alive_at >= $1", moment))
