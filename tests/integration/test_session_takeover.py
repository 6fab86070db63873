"""Another client uses the listener's client id: the log names it, and the listener slows its reconnects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from tests.engine import always_succeeds, connect, devices, events, insert_campaign, wait_until_ended, worker
from tests.servers import Mosquitto
from tests.support import end, eventually

NAME = "twice"
SESSION_TAKEN_OVER = b"\xe0\x02\x8e\x00"
LOST = "ota_status_listener_disconnected"


@dataclass
class ListenerConnections:
    """A proxy between a worker and the broker that records when the listener's sessions begin and end."""

    broker: Mosquitto
    names_takeovers: bool
    """Give the reason when a session ends. Mosquitto 2.0.11 does not, later versions and EMQX do."""
    sessions: list[list[float]] = field(default_factory=list)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.broker.port)
        hello = await reader.read(65536)
        session = [time.monotonic()]
        if f"{NAME}-0".encode() in hello:
            self.sessions.append(session)
        there_writer.write(hello)
        up = asyncio.create_task(pump(reader, there_writer))
        try:
            await pump(there_reader, writer)
            session.append(time.monotonic())
            with suppress(OSError):
                if self.names_takeovers and not up.done():
                    writer.write(SESSION_TAKEN_OVER)
                    await writer.drain()
        finally:
            await end(up)
            for each in (writer, there_writer):
                each.close()

    def seconds_between_sessions(self) -> list[float]:
        """Seconds from the end of each session to the beginning of the next."""
        return [after[0] - before[1] for before, after in pairwise(self.sessions)]


@asynccontextmanager
async def recorded_connections(
    broker: Mosquitto, *, names_takeovers: bool
) -> AsyncIterator[tuple[ListenerConnections, str]]:
    """Run the proxy. Yields it and its URL."""
    connections = ListenerConnections(broker, names_takeovers)
    open_now: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing = asyncio.create_task(connections.pass_on(reader, writer))
        open_now.add(passing)
        passing.add_done_callback(open_now.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield connections, f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for each in list(open_now):
            await end(each)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def second_client(broker_url: str, protocol: Literal["3.1.1", "5"]) -> AsyncIterator[None]:
    """A second client with the listener's client id that reconnects at once, as an older worker does."""
    broker = replace(Broker.from_url(broker_url), protocol=protocol)

    async def keep_reconnecting() -> None:
        while True:
            with suppress(BrokerUnavailable):
                async with Session.connect(broker, f"{NAME}-0", persistent=True) as session:
                    async for _ in session.messages():
                        pass

    reconnecting = asyncio.create_task(keep_reconnecting())
    try:
        yield
    finally:
        await end(reconnecting)


async def test_a_session_takeover_is_logged_and_the_listener_waits(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        recorded_connections(mosquitto, names_takeovers=True) as (connections, broker_url),
        worker(database, broker_url, tmp_path / "log", ROLLWAVE_MQTT_CLIENT_ID=NAME) as running,
    ):
        async with second_client(mosquitto.url, "5"):
            await eventually(
                lambda: len(connections.seconds_between_sessions()) >= 3,
                timeout=60,
                what="taken over three times, and back",
            )
        first, second, third = connections.seconds_between_sessions()[:3]
        assert (first > 0.9, second > 1.9, third > 3.9) == (True, True, True), connections.seconds_between_sessions()
        lost = events(running, LOST)[0]
        assert f"another client uses the client id {NAME}-0 on this broker" in lost["error"]
        assert "ROLLWAVE_MQTT_CLIENT_ID" in lost["error"]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
async def test_repeated_short_sessions_are_logged_as_a_suspected_takeover(
    database: str, mosquitto: Mosquitto, tmp_path: Path, protocol: Literal["3.1.1", "5"]
) -> None:
    settings = {"ROLLWAVE_MQTT_CLIENT_ID": NAME, "ROLLWAVE_MQTT_PROTOCOL": protocol}
    async with (
        connect(database) as host,
        devices(mosquitto.url, always_succeeds),
        recorded_connections(mosquitto, names_takeovers=False) as (connections, broker_url),
        worker(database, broker_url, tmp_path / "log", **settings) as running,
    ):
        async with second_client(mosquitto.url, protocol):
            await eventually(
                lambda: len(connections.seconds_between_sessions()) >= 4, timeout=60, what="lost four times, and back"
            )
        assert (connections.seconds_between_sessions()[2] > 0.9, connections.seconds_between_sessions()[3] > 1.9) == (
            True,
            True,
        ), connections.seconds_between_sessions()
        lost = " ".join(each["error"] for each in events(running, LOST))
        assert "session after session is lost within 10 s" in lost
        assert f"Another client may use the client id {NAME}-0" in lost
        # The listener continues after the other client has gone.
        campaign = await insert_campaign(host, 5)
        await wait_until_ended(host, campaign)
