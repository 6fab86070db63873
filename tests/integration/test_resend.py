"""A device that asks what to do gets its command again, or the answer that there is nothing to do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rollwave import metrics
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.dispatch.resend import MAX_TRIES
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import NOTHING_TO_DO, encode_report
from rollwave.mqtt.topics import ask_topic, status_topic
from rollwave.store.database import Pool
from tests.integration.test_engine_end_to_end import insert_campaign, running, statuses
from tests.proxy import Do, proxy, publishing
from tests.servers import Mosquitto
from tests.support import eventually


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, broker: EmbeddedBroker) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    monkeypatch.setenv("ROLLWAVE_ANSWER_RATE", "1000")


@asynccontextmanager
async def collected(broker: EmbeddedBroker | Mosquitto) -> AsyncIterator[list[Incoming]]:
    """All messages to devices."""
    received: list[Incoming] = []
    async with Session.connect(Broker.from_url(broker.url)) as session:
        await session.subscribe("tenant/+/device/+/ota")

        async def collect() -> None:
            async for message in session.messages():
                received.append(message)  # noqa: PERF401  it is read meanwhile

        collecting = asyncio.create_task(collect())
        try:
            yield received
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)


async def ask(session: Session, *device_ids: str) -> None:
    for receipt in [await session.publish(ask_topic("north", device_id), b"") for device_id in device_ids]:
        await receipt.acknowledged()


@pytest.mark.usefixtures("settings")
async def test_a_device_that_asks_gets_its_attempt_again_or_nothing_to_do(pool: Pool, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(pool, 2)
    async with collected(broker) as received, running(pool), Session.connect(Broker.from_url(broker.url)) as session:
        await eventually(lambda: len(received) == 2, what="both are sent to")
        await eventually(lambda: _statuses_are(pool, campaign, {"DOWNLOADING": 2}))
        first = {message.topic: message.payload for message in received}
        await ask(session, "dev-1", "stranger")
        await eventually(lambda: len(received) == 4, what="both questions are answered")
        again = {message.topic: message for message in received[2:]}
        resent_command = again["tenant/north/device/dev-1/ota"]
        assert (resent_command.payload, resent_command.attempt) == (first["tenant/north/device/dev-1/ota"], 1)
        assert again["tenant/north/device/stranger/ota"].payload == NOTHING_TO_DO
        # A device that has finished has nothing to do.
        done = await session.publish(status_topic("north", "dev-1"), encode_report(campaign, "SUCCESS"))
        await done.acknowledged()
        await eventually(lambda: _statuses_are(pool, campaign, {"DOWNLOADING": 1, "SUCCESS": 1}))
        await ask(session, "dev-1")
        await eventually(lambda: len(received) == 5, what="answered")
        assert received[-1].payload == NOTHING_TO_DO
    attempts = await pool.fetch("SELECT attempt FROM ota_device_status WHERE campaign_id = $1", campaign)
    assert {row["attempt"] for row in attempts} == {1}


async def test_a_device_that_ends_the_session_delays_no_answer_to_others(
    pool: Pool, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxy(mosquitto.url) as mqtt_proxy:
        monkeypatch.setenv("MQTT_BROKER_URL", mqtt_proxy.url)
        mqtt_proxy.rules.append(publishing(lambda topic: topic.endswith("/dev-1/ota"), Do.RESET))
        asking = [f"dev-{number}" for number in range(1, 8)]
        async with collected(mosquitto) as received, running(pool):
            async with Session.connect(Broker.from_url(mosquitto.url)) as session:
                await ask(session, *asking)
            others = {f"tenant/north/device/{each}/ota" for each in asking[1:]}
            await eventually(lambda: {each.topic for each in received} == others, what="the others are answered")
            before = Counter(each.topic for each in received)
            given_up = mqtt_proxy.connections
            await eventually(lambda: metrics.questions.labels("dropped")._value.get() > 0, what="it is given up")
        assert max(before.values()) <= MAX_TRIES
        assert mqtt_proxy.connections <= given_up + MAX_TRIES


@pytest.mark.usefixtures("settings")
async def test_a_stopped_campaign_sends_no_command_to_a_device_that_asks(pool: Pool, broker: EmbeddedBroker) -> None:
    campaign = await insert_campaign(pool, 1)
    async with collected(broker) as received, running(pool), Session.connect(Broker.from_url(broker.url)) as session:
        await eventually(lambda: _statuses_are(pool, campaign, {"DOWNLOADING": 1}))
        await pool.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", campaign)
        await ask(session, "dev-1")
        await eventually(lambda: len(received) == 2, what="answered")
        assert received[-1].payload == NOTHING_TO_DO


@pytest.mark.usefixtures("settings")
async def test_many_devices_that_ask_at_once_are_answered_at_a_limited_rate(pool: Pool, broker: EmbeddedBroker) -> None:
    """2,000 devices ask three times each. Each gets an answer, and the answers are sent at a limited rate."""
    async with collected(broker) as received, running(pool), Session.connect(Broker.from_url(broker.url)) as session:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await ask(session, *(f"dev-{n % 2000}" for n in range(6000)))
        asked = loop.time()
        await eventually(lambda: len({m.topic for m in received}) == 2000, timeout=30, what="each is answered")
        assert loop.time() - started >= 2000 / 1000 - 0.3
        counts = Counter(message.topic for message in received)
        assert max(counts.values()) <= 1 + (asked - started) * 10  # one answer while it waits, however often it asked


async def test_a_command_expires_with_its_deadline(
    pool: Pool, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", mosquitto.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    listen = await asyncio.create_subprocess_exec(
        *f"stdbuf -oL mosquitto_sub -d -V 5 -p {mosquitto.port} -t tenant/+/device/+/ota -C 1 -W 20 -F".split(),
        "%E %P %p",
        stdout=asyncio.subprocess.PIPE,
    )
    assert listen.stdout
    async for line in listen.stdout:
        if line.startswith(b"Subscribed"):
            break
    campaign = await insert_campaign(pool, 1, columns=", progress_timeout", values=", 90.5")
    async with running(pool):
        out, _ = await listen.communicate()
    [received] = [line for line in out.decode().splitlines() if "attempt:" in line]
    expiry, attempt, body = received.split(" ", 2)
    assert 85 <= int(expiry) <= 91
    assert attempt == "attempt:1"
    assert json.loads(body)["campaign_id"] == campaign


async def _statuses_are(pool: Pool, campaign: int, expected: dict[str, int]) -> bool:
    return await statuses(pool, campaign) == expected
