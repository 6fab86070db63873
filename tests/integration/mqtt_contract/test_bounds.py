"""Limits: a session reads no further than its buffer allows, and a broker may limit the size of a packet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable, MessageTooLarge
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import Kind, RunningBroker, on, on_mqtt_5
from tests.integration.mqtt_contract.helpers import ended, publish, received, settled
from tests.proxy import PUBLISH, Packet, Proxy

MESSAGES, MESSAGE_BYTES = 3000, 10_000
NETWORK_BYTES = 13_000_000
"""The maximum number of bytes that two sockets and a proxy hold."""


async def flood(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str, *, buffer: int
) -> None:
    """A session that reads nothing leaves its messages with the broker, while another session receives all.

    Then it receives all of them.
    """
    passed = 0

    def note(packet: Packet) -> None:
        nonlocal passed
        passed += packet.kind == PUBLISH and not packet.to_broker

    broker_proxy.rules.append(note)
    async with (
        adapter.connect(
            shared_broker.through(broker_proxy.url), unique_name, persistent=True, manual_ack=True, buffer=buffer
        ) as slow,
        adapter.connect(shared_broker.broker) as fast,
        adapter.connect(shared_broker.broker) as publisher,
    ):
        await slow.subscribe(unique_name)
        await fast.subscribe(unique_name)
        payloads = [b"%d" % number + b" " * MESSAGE_BYTES for number in range(MESSAGES)]
        reading = asyncio.create_task(received(fast.messages(), MESSAGES))
        await publish(publisher, unique_name, payloads)
        await reading
        assert passed * MESSAGE_BYTES < NETWORK_BYTES
        assert slow.connected
        messages = slow.messages()
        taken = []
        for _ in range(MESSAGES):
            incoming = (await received(messages, 1))[0]
            taken.append(incoming.payload)
            await slow.acknowledge(incoming)
        assert taken == payloads


async def test_a_session_stops_reading_at_its_maximum_of_messages(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    await flood(adapter, shared_broker, broker_proxy, unique_name, buffer=10)


@on_mqtt_5()
async def test_a_session_stops_reading_at_its_maximum_of_bytes(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    """On brokers that accept a limit for the size of packets."""
    await flood(adapter, shared_broker, broker_proxy, unique_name, buffer=MESSAGES)


@on(lambda able: able.announces_limit)
async def test_a_message_over_an_announced_limit_is_not_sent(
    adapter: Adapter, kind: Kind, unique_name: str, tmp_path: Path
) -> None:
    """The message is not sent, and the session stays open."""
    limit = kind.abilities.takes_bytes
    with kind.start(tmp_path, small_packets=True) as shared_broker:
        async with adapter.connect(shared_broker.broker) as session:
            with pytest.raises(MessageTooLarge, match=f"at most {limit} bytes, and the message alone has {limit}"):
                await session.publish(unique_name, b"x" * limit, attempt=1)
            receipt = await session.publish(unique_name, b"x" * (limit - 100), attempt=1)
            assert (await settled(receipt)).taken
            assert session.connected


@on(lambda able: not able.announces_limit)
async def test_a_message_over_an_unannounced_limit_ends_the_session(
    adapter: Adapter, kind: Kind, unique_name: str, tmp_path: Path
) -> None:
    """The broker ends the connection. The receipt says neither taken nor refused."""
    with kind.start(tmp_path, small_packets=True) as shared_broker:
        async with adapter.connect(shared_broker.broker) as session:
            receipt = await settled(await session.publish(unique_name, b"x" * (kind.abilities.takes_bytes + 1)))
            assert (receipt.taken, receipt.refused) == (False, False)
            await ended(session)
            with pytest.raises(BrokerUnavailable):
                await session.publish(unique_name, b"small")
        async with adapter.connect(shared_broker.broker) as session:
            assert (await settled(await session.publish(unique_name, b"small"))).taken
