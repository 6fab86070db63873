"""Manual acknowledgement: unacknowledged messages are sent again to the next session of the same client id."""

from __future__ import annotations

import pytest

from rollwave.errors import BrokerUnavailable
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import RunningBroker
from tests.integration.mqtt_contract.helpers import (
    LAST,
    ended,
    packet_id,
    publish,
    received,
    received_until_last,
    wait_until_read,
)
from tests.proxy import PUBACK, PUBLISH, Packet, Proxy
from tests.support import eventually

PAYLOADS = [b"%d" % number for number in range(6)]


async def test_only_unacknowledged_messages_are_sent_again(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
        await publish(session, unique_name, PAYLOADS)
        first = await received(session.messages(), len(PAYLOADS))
        await session.acknowledge(first[0])
        await session.acknowledge_all(first[1:3])
        await wait_until_read(session, unique_name)
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        await publish(session, unique_name, [LAST])
        again = await received_until_last(session.messages())
        assert [message.payload for message in again] == PAYLOADS[3:]
        await session.acknowledge_all(again)


async def test_unacknowledged_messages_of_an_aborted_session_are_sent_again(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
        await publish(session, unique_name, PAYLOADS)
        incoming = await received(session.messages(), 3)
        session.abort()
        await ended(session)
        with pytest.raises(BrokerUnavailable):
            await session.acknowledge_all(incoming)
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        again = await received(session.messages(), len(PAYLOADS))
        assert [message.payload for message in again] == PAYLOADS


async def test_a_message_that_waits_in_the_buffer_is_not_acknowledged(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    """Also if it was not read from the session: only the caller acknowledges."""
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
        await publish(session, unique_name, PAYLOADS)
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True, manual_ack=True) as session:
        again = await received(session.messages(), len(PAYLOADS))
        assert [message.payload for message in again] == PAYLOADS


async def test_acknowledgements_go_out_in_the_order_received(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    sent: list[int] = []
    acknowledged: list[int] = []

    def note(packet: Packet) -> None:
        if packet.kind == PUBLISH and not packet.to_broker:
            sent.append(packet_id(packet))
        elif packet.kind == PUBACK and packet.to_broker:
            acknowledged.append(packet_id(packet))

    broker_proxy.rules.append(note)
    broker = shared_broker.through(broker_proxy.url)
    async with adapter.connect(broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
        async with adapter.connect(shared_broker.broker) as publisher:
            await publish(publisher, unique_name, [b"%d" % number for number in range(200)])
        messages = session.messages()
        for _ in range(4):
            await session.acknowledge_all(await received(messages, 50))
        await eventually(lambda: len(acknowledged) == 200, what="acknowledged")
    assert acknowledged == sent


async def test_without_manual_acknowledgement_received_messages_are_not_sent_again(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
        await session.subscribe(unique_name)
        await publish(session, unique_name, PAYLOADS)
        await received(session.messages(), len(PAYLOADS))
        await wait_until_read(session, unique_name)
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
        await publish(session, unique_name, [LAST])
        assert await received_until_last(session.messages()) == []
