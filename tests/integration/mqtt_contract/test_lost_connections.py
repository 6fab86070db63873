"""When a connection fails, its session soon ends with an error of our own, whatever the failure."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from tests.faulty import Fault, failing, faulty_sockets
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import RunningBroker
from tests.integration.mqtt_contract.helpers import ended, settled
from tests.proxy import CONNACK, PINGREQ, PUBACK, SUBACK, Do, Packet, Proxy, publishing, to_client
from tests.shipped import ENGINE, ShippedMosquitto
from tests.support import eventually

__all__ = ["faulty_sockets"]

ERRORS: list[Callable[[], Exception]] = [
    lambda: OSError(113, "No route to host"),
    lambda: ConnectionResetError(104, "Connection reset by peer"),
    lambda: TimeoutError(110, "Connection timed out"),
    lambda: asyncio.IncompleteReadError(b"", 2),
    EOFError,
    lambda: ssl.SSLError(1, "decryption failed"),
]
NAMES = ["OSError", "ConnectionResetError", "TimeoutError", "IncompleteReadError", "EOFError", "SSLError"]

each_error = pytest.mark.parametrize("error", ERRORS, ids=NAMES)


async def life_of_a_session(adapter: Adapter, broker: Broker, unique_name: str) -> None:
    """Use every operation of a session."""
    async with asyncio.timeout(20), adapter.connect(broker, unique_name, persistent=True, manual_ack=True) as session:
        await session.subscribe(unique_name)
        for receipt in [await session.publish(unique_name, bytes([number])) for number in range(3)]:
            await receipt.acknowledged()
        last = await session.publish(unique_name, b"\3")
        await last.wait()
        messages = session.messages()
        for _ in range(4):
            try:
                incoming = await anext(messages)
            except StopAsyncIteration:
                raise BrokerUnavailable("messages ended") from None
            await session.acknowledge(incoming)
        await session.unsubscribe(unique_name)


async def every_fault(
    adapter: Adapter, broker: Broker, unique_name: str, error: Callable[[], Exception], way: str
) -> int:
    """Raise a fault at the first read or write, then at the second, and so on.

    Returns the number of reads or writes.
    """
    for number in itertools.count(1):
        with failing(Fault(error(), way, number)) as fault, suppress(BrokerUnavailable):
            await life_of_a_session(adapter, broker, unique_name)
        if not fault.raised:
            return number - 1
    raise AssertionError


@pytest.mark.usefixtures("faulty_sockets")
@each_error
@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_session_raises_only_broker_errors(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str, error: Callable[[], Exception], way: str
) -> None:
    assert await every_fault(adapter, shared_broker.broker, unique_name, error, way) >= 5


@pytest.mark.usefixtures("faulty_sockets")
@each_error
@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_session_over_tls_raises_only_broker_errors(
    adapter: Adapter, shipped_mosquitto: ShippedMosquitto, error: Callable[[], Exception], way: str
) -> None:
    topic = "tenant/north/device/dev-1/ota/status"
    assert await every_fault(adapter, shipped_mosquitto.login(ENGINE), topic, error, way) >= 5


async def test_a_reset_during_an_acknowledgement_is_a_broker_error(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        broker_proxy.rules.append(publishing(lambda _: True, Do.RESET))
        receipt = await session.publish(unique_name, b"")
        with pytest.raises(BrokerUnavailable):
            await receipt.acknowledged()
        with pytest.raises(BrokerUnavailable):
            await session.publish(unique_name, b"")
        assert not session.connected


@pytest.mark.parametrize("packet_kind", [CONNACK, PUBACK, SUBACK])
async def test_a_truncated_packet_is_a_broker_error(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str, packet_kind: int
) -> None:
    broker_proxy.rules.append(to_client(packet_kind, Do.TRUNCATE))
    with pytest.raises(BrokerUnavailable):
        await life_of_a_session(adapter, shared_broker.through(broker_proxy.url), unique_name)


async def test_a_callers_timeout_is_raised_as_a_timeout(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        broker_proxy.rules.append(to_client(PUBACK, Do.HOLD))
        receipt = await session.publish(unique_name, b"")
        for wait in (receipt.acknowledged, receipt.wait, session.messages().__anext__):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await wait()
        await eventually(lambda: broker_proxy.published == [unique_name], what="published")
        broker_proxy.rules.clear()
        await broker_proxy.release()
        await settled(receipt)
        assert receipt.taken


async def test_a_half_open_connection_is_noticed_within_the_keepalive(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    """The connection is open, but no data arrives. The session ends after 1.5 times the keepalive."""
    keepalive = 1
    async with adapter.connect(replace(shared_broker.through(broker_proxy.url), keepalive=keepalive)) as session:
        broker_proxy.rules.append(lambda _: Do.DROP)
        receipt = await session.publish(unique_name, b"")
        began = time.monotonic()
        await ended(session)
        assert time.monotonic() - began < 1.5 * keepalive + 3
        await settled(receipt)
        assert (receipt.taken, receipt.refused, session.connected) == (False, False, False)


async def test_a_session_without_traffic_is_kept_alive(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    pings: list[Packet] = []

    def note(packet: Packet) -> None:
        if packet.kind == PINGREQ:
            pings.append(packet)

    broker_proxy.rules.append(note)
    async with adapter.connect(replace(shared_broker.through(broker_proxy.url), keepalive=1)) as session:
        await eventually(lambda: len(pings) >= 3, what="asked for a sign of life")
        assert session.connected
        await (await session.publish(unique_name, b"")).acknowledged()
