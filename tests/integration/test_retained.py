"""A retained report is old: it is ignored, both when it is published and when the broker sends it later."""

from __future__ import annotations

import pytest

from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store.database import Pool
from tests.integration.test_engine_end_to_end import insert_campaign, running, statuses
from tests.servers import Mosquitto
from tests.support import eventually


async def test_a_retained_report_is_ignored(pool: Pool, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER_URL", mosquitto.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    campaign = await insert_campaign(pool, 2)
    async with Session.connect(Broker.from_url(mosquitto.url)) as session:
        async with running(pool):
            await eventually(lambda: _are(pool, campaign, {"DOWNLOADING": 2}))
            await _say(session, "dev-1", campaign, retain=True)
            await _say(session, "dev-2", campaign, retain=False)
            await eventually(lambda: _are(pool, campaign, {"DOWNLOADING": 1, "SUCCESS": 1}))
        async with running(pool):  # The broker still has it when the engine comes back.
            await _say(session, "dev-2", campaign, retain=False)
        assert await statuses(pool, campaign) == {"DOWNLOADING": 1, "SUCCESS": 1}


async def _say(session: Session, device_id: str, campaign: int, *, retain: bool) -> None:
    topic, body = status_topic("north", device_id), encode_report(campaign, "SUCCESS")
    await (await session.publish(topic, body, retain=retain)).acknowledged()


async def _are(pool: Pool, campaign: int, expected: dict[str, int]) -> bool:
    return await statuses(pool, campaign) == expected
