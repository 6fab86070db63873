"""Too many reports, and one device that floods the broker: memory stays bounded, and final statuses are stored."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.wire import connected, flood, publish_frame
from rollwave.mqtt.library import MAX_PACKET_BYTES
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import ask_topic, status_topic
from tests.engine import TENANT, Connection, breakdown, campaign_row, connect, events, insert_campaign
from tests.servers import Mosquitto
from tests.support import Running, eventually, free_port, rollwave_running

MEGABYTE = 1024 * 1024
ROOM = 64 * MEGABYTE
"""The number of bytes by which a worker may grow. It holds a few batches, and a batch is 4 MB at most."""

ROOM_FOR_ORDINARY = 16 * MEGABYTE
"""The same for reports of the usual size, which fill a batch by their number."""


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that queues everything, and often reports what it drops."""
    with Mosquitto(tmp_path, config="max_queued_messages 0\nsys_interval 1\n") as broker:
        yield broker


class FastPublisher:
    """Publishes at QoS 1 as fast as the broker acknowledges, in its own thread."""

    def __init__(self, broker: Mosquitto) -> None:
        self._port = broker.port

    async def send(self, messages: Sequence[tuple[str, bytes]], *, per_second: float = 0.0) -> None:
        """Return after the broker has acknowledged every message."""
        await asyncio.to_thread(self._send, messages, per_second)

    def _send(self, messages: Sequence[tuple[str, bytes]], per_second: float) -> None:
        frames = [publish_frame(number, *message) for number, message in enumerate(messages)]
        with connected(self._port, f"line-{random.getrandbits(32)}") as line:
            flood(line, frames, per_second=per_second)


class Measured:
    """A worker, and its own metrics."""

    def __init__(self, running: Running, port: int) -> None:
        self.running = running
        self._port = port

    def metric(self, name: str) -> float:
        """The sum of the series of a metric whose names begin with this text."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def outcome(self, name: str) -> float:
        return self.metric(f'rollwave_reports_total{{outcome="{name}"}}')

    async def wait_until_processed(self, number: float, timeout: float = 30.0) -> None:
        """Wait until it has processed this many messages since it started."""
        await eventually(lambda: self.metric("rollwave_reports_total{") >= number, timeout, f"{number} taken in")

    def memory(self, key: str) -> int:
        """Bytes: ``VmRSS`` is the present size, ``VmHWM`` the maximum."""
        status = Path(f"/proc/{self.running.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(key))

    async def wait_until_memory_is_steady(self) -> None:
        """Wait until its memory has not grown for a second."""
        seen, since = 0, time.monotonic()

        def is_steady() -> bool:
            nonlocal seen, since
            if (now := self.memory("VmRSS")) != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since > 1.0

        await eventually(is_steady, timeout=30, what="steady")


@asynccontextmanager
async def writing_held_up(host: Connection, line: FastPublisher, report: tuple[str, bytes]) -> AsyncIterator[None]:
    """Nothing is committed during the block: a worker waits for a locked table to write ``report``."""
    async with host.transaction():
        await host.execute("LOCK TABLE ota_device_status IN ACCESS EXCLUSIVE MODE")
        await line.send([report])
        yield


@asynccontextmanager
async def measured(database: str, broker: Mosquitto, log: Path) -> AsyncIterator[Measured]:
    port, env = free_port(), {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url}
    async with rollwave_running("worker", "--port", str(port), log=log, env=env) as running:
        subscribed = "ota_status_listener_subscribed"
        await eventually(lambda: subscribed in running.output(), timeout=20, what=f"{subscribed} in {log}")
        yield Measured(running, port)


async def insert_sent(host: Connection, names: Sequence[str]) -> int:
    """Insert a campaign whose devices are all in progress."""
    campaign = await insert_campaign(host, names, abort_threshold=1.0, status="PAUSED")
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1")
    await host.execute("UPDATE ota_device_status SET started_at = now(), due_at = now() + interval '1 hour'")
    return campaign


def report_message(name: str, campaign: int, status: str, progress: int | None = None) -> tuple[str, bytes]:
    return status_topic(TENANT, name), encode_report(campaign, status, progress)


async def test_reports_at_ten_times_capacity_cost_no_memory_and_no_final_report(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    names = [f"dev-{number}" for number in range(2000)]
    final_status = {name: "FAILED" if number % 10 == 7 else "SUCCESS" for number, name in enumerate(names)}
    async with connect(database) as host, measured(database, mosquitto, tmp_path / "worker.log") as it:
        campaign = await insert_sent(host, names)
        line = FastPublisher(mosquitto)
        ordinary = [report_message(name, campaign, "DOWNLOADING", progress) for progress in (1, 2, 3) for name in names]
        started = time.monotonic()
        await line.send(ordinary)
        await it.wait_until_processed(len(ordinary))
        a_second = max(4000, int(len(ordinary) / (time.monotonic() - started)))
        before = it.memory("VmRSS")

        messages = [
            report_message(names[n % 2000], campaign, "DOWNLOADING", 3 + n // 2000) for n in range(10 * a_second)
        ]
        for name in names:  # The final status of each device is at a random place between them.
            messages[random.randrange(len(messages))] = report_message(name, campaign, final_status[name])
        finished = {topic.split("/")[3] for topic, payload in messages if b"DOWNLOADING" not in payload}
        backlog, live = messages[: 7 * a_second], messages[7 * a_second :]
        async with writing_held_up(host, line, ordinary[0]):
            await line.send(backlog)
            await it.wait_until_memory_is_steady()
        await line.send(live)
        await it.wait_until_processed(len(ordinary) + 1 + len(messages), timeout=60)

        assert it.memory("VmHWM") - before < ROOM_FOR_ORDINARY
        assert it.outcome("shed") > len(messages) / 10
        rows = await host.fetch("SELECT device_id, status FROM ota_device_status")
        assert {row["device_id"]: row["status"] for row in rows} == {
            name: final_status[name] if name in finished else "DOWNLOADING" for name in names
        }
        failed = sum(final_status[name] == "FAILED" for name in finished)
        assert (await campaign_row(host, campaign))[1:] == (len(finished) - failed, failed)


async def test_waiting_messages_are_limited_by_their_bytes(database: str, mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with connect(database) as host, measured(database, mosquitto, tmp_path / "worker.log") as it:
        campaign = await insert_sent(host, ["dev-1", "dev-2"])
        before = it.memory("VmRSS")
        line, topic = FastPublisher(mosquitto), status_topic(TENANT, "dev-1")
        large = [(topic, b"[" * (MAX_PACKET_BYTES - 1000))] * 80
        async with writing_held_up(host, line, report_message("dev-2", campaign, "DOWNLOADING", 1)):
            await line.send(large)
            await line.send(
                [(topic, b"[" * MAX_PACKET_BYTES)]
            )  # The broker has been told that the session has ended, and drops its messages.
            await line.send([report_message("dev-2", campaign, "SUCCESS")])
            await it.wait_until_memory_is_steady()
        await it.wait_until_processed(len(large) + 2)
        assert it.outcome("bad_payload") == len(large)
        assert await breakdown(host, campaign) == {"DOWNLOADING": 1, "SUCCESS": 1}
        assert it.memory("VmHWM") - before < ROOM
        assert events(it.running, "ota_status_listener_disconnected") == []


async def test_a_device_that_floods_does_not_delay_other_devices(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    names = [f"dev-{number}" for number in range(300)]
    async with connect(database) as host, measured(database, mosquitto, tmp_path / "worker.log") as it:
        campaign = await insert_sent(host, [*names, "loud"])
        line = FastPublisher(mosquitto)

        async def all_are(status: str) -> None:
            """Wait until this status of every other device is committed."""
            await line.send([report_message(name, campaign, status) for name in names], per_second=600)

            async def done() -> bool:
                return (await breakdown(host, campaign)).get(status, 0) >= len(names)

            await eventually(done, timeout=30, what=f"all are {status}")

        await all_are("INSTALLING")
        repeated_report = [
            report_message("loud", campaign, "DOWNLOADING", 7),
            (status_topic(TENANT, "loud"), b"{"),
            report_message("loud", campaign, "INSTALLING", 7),
            (ask_topic(TENANT, "loud"), b""),
        ]
        stop_publishing = asyncio.Event()

        async def publish_until() -> int:
            """Publish until the reports of all other devices are committed. Returns the number of rounds."""
            rounds = 0
            while not stop_publishing.is_set():
                await line.send(repeated_report * 100, per_second=1000)
                rounds += 100
            return rounds

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            shouting = group.create_task(publish_until())
            await eventually(lambda: it.outcome("throttled") > 100, what="throttled")
            await all_are("SUCCESS")
            await eventually(lambda: it.outcome("throttled") > 1000, timeout=30, what="throttled all the time")
            await line.send([report_message("loud", campaign, "FAILED")])
            stop_publishing.set()
        await it.wait_until_processed(2 * len(names) + shouting.result() * len(repeated_report) + 1)
        seconds = time.monotonic() - began
        assert await breakdown(host, campaign) == {"SUCCESS": 300, "FAILED": 1}
        assert len(events(it.running, "ota_status_bad_payload")) <= 5 + seconds / 10 + 1
        assert await host.fetchval("SELECT count(*) FROM ota_quarantine") <= 5 + seconds / 10 + 1


async def test_messages_dropped_by_the_broker_are_counted(database: str, tmp_path: Path) -> None:
    with Mosquitto(tmp_path, config="max_queued_messages 100\nsys_interval 1\n") as broker:
        async with connect(database) as host, measured(database, broker, tmp_path / "first.log") as first:
            campaign = await insert_sent(host, ["dev-1"])
            await eventually(lambda: first.metric("rollwave_broker_messages_dropped") == 0, what="nothing dropped yet")
            first.running.process.terminate()
            await first.running.process.wait()
            await FastPublisher(broker).send(
                [report_message("dev-1", campaign, "DOWNLOADING", n % 100) for n in range(600)]
            )
            async with measured(database, broker, tmp_path / "second.log") as second:
                dropped = "rollwave_broker_messages_dropped"
                await eventually(lambda: second.metric(dropped) == 500, what="500 of 600 dropped")
                await second.wait_until_processed(100)


async def test_a_listener_that_reconnects_ingests_a_long_queue(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with connect(database) as host:
        async with measured(database, mosquitto, tmp_path / "first.log") as first:
            names = [f"dev-{number}" for number in range(8000)]
            campaign = await insert_sent(host, names)
            first.running.process.terminate()
            await first.running.process.wait()
        await FastPublisher(mosquitto).send([report_message(name, campaign, "SUCCESS") for name in names])
        async with measured(database, mosquitto, tmp_path / "second.log"):

            async def done() -> bool:
                return await breakdown(host, campaign) == {"SUCCESS": 8000}

            await eventually(done, timeout=20, what="all taken in")
