"""The device agent connects again after every error that a socket raises, at each read or write."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rollwave.device.agent import Agent, AgentPlan
from rollwave.device.backoff import delays
from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.store.outage import is_away
from rollwave.tasks import end
from tests.faulty import Fault, failing, faulty_sockets
from tests.servers import Mosquitto
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


def test_a_broker_error_is_not_taken_for_an_outage_of_the_database() -> None:
    assert not is_away(BrokerUnavailable("lost"))


@asynccontextmanager
async def living(agent: Agent) -> AsyncIterator[None]:
    """A running agent. An error that ends it fails the test."""
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
