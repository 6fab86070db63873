"""The Mosquitto configuration in ``deploy/``: a device can use only its own topics, in both directions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import ASK_FILTER, DROPPED, STATUS_FILTER, ask_topic, command_topic, status_topic
from tests.shipped import DEVICES, ENGINE, ShippedMosquitto

OWN = ("north", "dev-1")
OTHERS = [("north", "dev-2"), ("south", "dev-1"), ("Süd 1", "gerät@7 a..b")]


async def publishes(broker: Broker, topic: str, payload: bytes = b"x") -> bool:
    async with Session.connect(broker) as session:
        receipt = await session.publish(topic, payload)
        await receipt.wait()
        assert receipt.taken or receipt.refused
        return receipt.taken


async def heard_until(session: Session, topic: str) -> list[str]:
    """The topics of the messages received, up to a message on ``topic``."""
    topics: list[str] = []
    async with asyncio.timeout(10):
        async for message in session.messages():
            topics.append(message.topic)
            if message.topic == topic:
                return topics
    raise AssertionError(topics)


@pytest.mark.parametrize("own", [OWN, ("Süd 1", "gerät@7 a..b")], ids=["plain", "as people call them"])
async def test_a_device_can_use_its_own_topics_in_both_directions(
    shipped_mosquitto: ShippedMosquitto, own: tuple[str, str]
) -> None:
    engine, device = (shipped_mosquitto.login(user) for user in (ENGINE, "/device/".join(own)))
    for topic_filter in (STATUS_FILTER, f"$share/rollwave-0/{STATUS_FILTER}"):
        async with Session.connect(engine) as up, Session.connect(device) as down:
            await up.subscribe(topic_filter, ASK_FILTER)
            await down.subscribe(command_topic(*own))
            assert await publishes(device, ask_topic(*own), b"")
            assert await publishes(device, status_topic(*own))
            assert await heard_until(up, status_topic(*own)) == [ask_topic(*own), status_topic(*own)]
            assert await publishes(engine, command_topic(*own))
            assert await heard_until(down, command_topic(*own)) == [command_topic(*own)]


@pytest.mark.parametrize("other", OTHERS, ids=["device", "tenant", "as people call them"])
async def test_a_device_cannot_use_topics_of_another_device(
    shipped_mosquitto: ShippedMosquitto, other: tuple[str, str]
) -> None:
    engine, device = (shipped_mosquitto.login(user) for user in (ENGINE, DEVICES[0]))
    for topic in (status_topic(*other), ask_topic(*other), command_topic(*other), command_topic(*OWN), "anything"):
        assert not await publishes(device, topic), topic
    async with Session.connect(device) as session:
        # Mosquitto accepts the subscription and filters messages later. So the test looks at the messages.
        for topic_filter in (command_topic(*other), "tenant/+/device/+/ota", STATUS_FILTER, "#", command_topic(*OWN)):
            await session.subscribe(topic_filter)
        assert await publishes(shipped_mosquitto.login("south/device/dev-1"), status_topic("south", "dev-1"))
        assert await publishes(engine, command_topic(*other))
        assert await publishes(engine, command_topic(*OWN))
        assert set(await heard_until(session, command_topic(*OWN))) == {command_topic(*OWN)}


async def test_the_engines_queued_messages_survive_a_broker_restart(shipped_mosquitto: ShippedMosquitto) -> None:
    engine, device = (shipped_mosquitto.login(user) for user in (ENGINE, DEVICES[0]))
    async with Session.connect(engine, "slot-0", persistent=True) as session:
        await session.subscribe(STATUS_FILTER)
    assert await publishes(device, status_topic(*OWN), b"before")
    shipped_mosquitto.stop()
    shipped_mosquitto.start()
    assert await publishes(device, status_topic(*OWN), b"after")
    async with Session.connect(engine, "slot-0", persistent=True) as session:
        assert session.session_present
        messages = session.messages()
        async with asyncio.timeout(10):
            assert [(await anext(messages)).payload for _ in range(2)] == [b"before", b"after"]


async def test_the_engine_cannot_publish_reports_and_unknown_logins_are_refused(
    shipped_mosquitto: ShippedMosquitto,
) -> None:
    assert not await publishes(shipped_mosquitto.login(ENGINE), status_topic(*OWN))
    ca_cert = str(shipped_mosquitto.ca_cert)
    for stranger in (
        Broker.from_url(shipped_mosquitto.url, ca_cert=ca_cert),
        Broker.from_url(shipped_mosquitto.url, username=ENGINE, password="wrong", ca_cert=ca_cert),
    ):
        with pytest.raises(BrokerUnavailable):
            await publishes(stranger, "anything")


async def test_only_the_engine_can_read_the_count_of_dropped_messages(
    shipped_mosquitto: ShippedMosquitto, tmp_path: Path
) -> None:
    shipped_mosquitto.stop()
    with (tmp_path / "mosquitto.conf").open("a") as config:
        config.write("max_queued_messages 2\nsys_interval 1\n")
    shipped_mosquitto.start()
    engine, device = (shipped_mosquitto.login(user) for user in (ENGINE, DEVICES[0]))
    async with Session.connect(engine, "slot-0", persistent=True) as session:
        await session.subscribe(STATUS_FILTER)
    async with Session.connect(engine) as up, Session.connect(device) as down:
        await up.subscribe_to_state(DROPPED)
        await down.subscribe_to_state(DROPPED)
        await down.subscribe(command_topic(*OWN))
        for _ in range(5):
            assert await publishes(device, status_topic(*OWN))
        assert await heard_until(up, DROPPED) == [DROPPED]
        assert await publishes(engine, command_topic(*OWN))
        assert await heard_until(down, command_topic(*OWN)) == [command_topic(*OWN)]
