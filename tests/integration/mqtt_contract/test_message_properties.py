"""Properties of a message: its attempt, its expiry, and whether it was retained."""

from __future__ import annotations

import struct

import pytest

from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import RunningBroker, on
from tests.integration.mqtt_contract.helpers import LAST, publish, received, received_until_last
from tests.proxy import PUBLISH, Packet, Proxy
from tests.support import eventually

MESSAGE_EXPIRY = b"\x02"
"""The identifier of this property in an MQTT 5 packet."""


@pytest.mark.parametrize("attempt", [None, 0, 1, 99_999])
async def test_a_message_carries_its_attempt(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str, attempt: int | None
) -> None:
    async with adapter.connect(shared_broker.broker) as session:
        await session.subscribe(unique_name)
        await (await session.publish(unique_name, b"\x00\xff binary", attempt=attempt)).acknowledged()
        [message] = await received(session.messages(), 1)
        assert (message.topic, message.payload, message.retain) == (unique_name, b"\x00\xff binary", False)
        assert message.attempt == (attempt if shared_broker.abilities.carries_properties else None)


@on(lambda able: able.carries_properties)
@pytest.mark.parametrize(("expires_in", "on_the_wire"), [(90.5, 91), (1, 1), (2.0**40, 2**32 - 1)])
async def test_the_expiry_is_whole_seconds_rounded_up(
    adapter: Adapter,
    shared_broker: RunningBroker,
    broker_proxy: Proxy,
    unique_name: str,
    expires_in: float,
    on_the_wire: int,
) -> None:
    packets: list[Packet] = []

    def note(packet: Packet) -> None:
        if packet.kind == PUBLISH and packet.to_broker:
            packets.append(packet)

    broker_proxy.rules.append(note)
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        await (await session.publish(unique_name, b"", expires_in=expires_in)).acknowledged()
    [packet] = packets
    assert MESSAGE_EXPIRY + struct.pack("!I", on_the_wire) in packet.raw


@on(lambda able: able.carries_properties)
async def test_a_message_that_has_expired_does_not_arrive(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
    async with adapter.connect(shared_broker.broker) as session:
        for payload, expires_in in ((b"short", 1), (b"long", 600), (b"for ever", None)):
            await (await session.publish(unique_name, payload, expires_in=expires_in)).acknowledged()

    async def short_has_gone() -> bool:
        async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
            return (await received(session.messages(), 1))[0].payload == b"long"

    await eventually(short_has_gone, what="expired")
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        assert [each.payload for each in await received(session.messages(), 2)] == [b"long", b"for ever"]


async def test_retained_messages_are_withheld_or_marked_where_the_broker_can(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    """The engine ignores retained reports. So it asks for no older ones, and wants later ones marked."""
    able = shared_broker.abilities
    async with adapter.connect(shared_broker.broker) as session:
        await (await session.publish(unique_name, b"before", retain=True)).acknowledged()
        await session.subscribe(unique_name)
        await (await session.publish(unique_name, b"later", retain=True)).acknowledged()
        await publish(session, unique_name, [b"live", LAST])
        arrived = await received_until_last(session.messages())
        before = [] if able.withholds_retained else [(b"before", True)]
        later = [(b"later", able.marks_retained), (b"live", False)]
        assert [(message.payload, message.retain) for message in arrived] == before + later


async def test_a_subscription_to_state_brings_what_is_retained(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    qos: list[int] = []

    def note(packet: Packet) -> None:
        if packet.kind == PUBLISH and not packet.to_broker:
            qos.append(packet.raw[0] >> 1 & 3)

    broker_proxy.rules.append(note)
    async with (
        adapter.connect(shared_broker.broker) as publisher,
        adapter.connect(shared_broker.through(broker_proxy.url)) as session,
    ):
        await (await publisher.publish(unique_name, b"state", retain=True)).acknowledged()
        await session.subscribe_to_state(unique_name)
        messages = session.messages()
        [state] = await received(messages, 1)
        assert (state.payload, state.retain) == (b"state", True)
        await (await publisher.publish(unique_name, b"new state", retain=True)).acknowledged()
        assert (await received(messages, 1))[0].payload == b"new state"
    assert qos == [0, 0], "messages of a state need no acknowledgement"
