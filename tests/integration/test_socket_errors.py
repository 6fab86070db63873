"""Whatever a socket raises, at whichever read or write: it is our own error, and the engine and the agent live on."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from rollwave.device.agent import Agent, AgentPlan
from rollwave.device.backoff import delays
from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.store.outage import is_away
from rollwave.tasks import end
from tests.faulty import Fault, failing, faulty_sockets
from tests.proxy import PUBACK, Do, proxy, publishing, to_client
from tests.servers import Mosquitto
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
TOPIC = "tenant/north/device/dev-1/ota/status"

each_error = pytest.mark.parametrize("error", ERRORS, ids=NAMES)


async def life_of_a_session(broker: Broker) -> None:
    """All that can be done with one."""
    async with asyncio.timeout(20), Session.connect(broker, "test", persistent=True, manual_ack=True) as session:
        await session.subscribe(TOPIC)
        for receipt in [await session.publish(TOPIC, bytes([number])) for number in range(3)]:
            await receipt.acknowledged()
        last = await session.publish(TOPIC, b"\3")
        await last.settled()
        messages = session.messages()
        for _ in range(4):
            try:
                incoming = await anext(messages)
            except StopAsyncIteration:
                raise BrokerUnavailable("messages ended") from None
            await session.acknowledge(incoming)
        await session.unsubscribe(TOPIC)


async def every_fault(broker: Broker, error: Callable[[], Exception], way: str) -> int:
    """Live through a fault at the first read or write, at the second, and so on. Returns how many there are."""
    for number in itertools.count(1):
        with failing(Fault(error(), way, number)) as fault, suppress(BrokerUnavailable):
            await life_of_a_session(broker)
        if not fault.raised:
            return number - 1
    raise AssertionError


@pytest.mark.usefixtures("faulty_sockets")
@each_error
@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_session_raises_only_broker_errors(
    mosquitto: Mosquitto, error: Callable[[], Exception], way: str
) -> None:
    assert await every_fault(Broker.from_url(mosquitto.url), error, way) >= 5


@pytest.mark.usefixtures("faulty_sockets")
@each_error
@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_session_over_tls_raises_only_broker_errors(
    shipped_mosquitto: ShippedMosquitto, error: Callable[[], Exception], way: str
) -> None:
    assert await every_fault(shipped_mosquitto.login(ENGINE), error, way) >= 5


def test_a_broker_error_is_not_taken_for_an_outage_of_the_database() -> None:
    assert not is_away(BrokerUnavailable("lost"))


async def test_an_invalid_host_name_is_a_broker_error() -> None:
    with pytest.raises(BrokerUnavailable, match="no MQTT session"):
        async with Session.connect(Broker(host="a" * 70 + ".invalid", port=1883)):
            pass


async def test_a_reset_during_an_acknowledgement_is_a_broker_error(mosquitto: Mosquitto) -> None:
    async with proxy(mosquitto.url) as between, Session.connect(Broker.from_url(between.url)) as session:
        between.rules.append(publishing(lambda _: True, Do.RESET))
        receipt = await session.publish(TOPIC, b"")
        with pytest.raises(BrokerUnavailable):
            await receipt.acknowledged()
        with pytest.raises(BrokerUnavailable):
            await session.publish(TOPIC, b"")
        assert not session.connected


@pytest.mark.parametrize("kind", [2, 4, 9])
async def test_a_truncated_packet_is_a_broker_error(mosquitto: Mosquitto, kind: int) -> None:
    async with proxy(mosquitto.url) as between:
        between.rules.append(to_client(kind, Do.TRUNCATE))
        with pytest.raises(BrokerUnavailable):
            await life_of_a_session(Broker.from_url(between.url))


async def test_a_callers_timeout_is_raised_as_a_timeout(mosquitto: Mosquitto) -> None:
    async with proxy(mosquitto.url) as between, Session.connect(Broker.from_url(between.url)) as session:
        between.rules.append(to_client(PUBACK, Do.HOLD))
        receipt = await session.publish(TOPIC, b"")
        for wait in (receipt.acknowledged, receipt.settled, session.messages().__anext__):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await wait()
        await between.release()
        await receipt.acknowledged()


@asynccontextmanager
async def living(agent: Agent) -> AsyncIterator[None]:
    """An agent at work; an error that ends it fails the test."""
    life = asyncio.create_task(agent.run())
    try:
        yield
        assert not life.done(), life.exception()
    finally:
        await end(life, within=10)


@pytest.mark.usefixtures("faulty_sockets")
@pytest.mark.parametrize("way", ["read", "write"])
async def test_the_device_agent_continues_after_every_socket_error(
    mosquitto: Mosquitto, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollwave.device.connection.delays", lambda: (min(0.05, each) for each in delays()))

    async def live(number: int, error: Exception, device: str) -> None:
        directory = tmp_path / device
        directory.mkdir()
        with failing(Fault(error, way, number)) as fault:
            agent = Agent(Broker.from_url(mosquitto.url), AgentPlan("north", device, directory))
            async with living(agent):
                await eventually(lambda: fault.raised, what=f"{error!r} at {way} {number}")
                await eventually(lambda: agent.connected, what=f"connected after {error!r} at {way} {number}")

    async with asyncio.TaskGroup() as all_of_them:
        for number, (index, error) in itertools.product([1, 2, 3], enumerate(ERRORS)):
            all_of_them.create_task(live(number, error(), f"dev-{number}-{index}"))
