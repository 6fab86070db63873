"""The reference device against a real broker and a real artifact server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rollwave.device.agent import Agent, AgentPlan
from rollwave.device.download import Limits
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.broker import Broker, Protocol
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_cancel, encode_command
from rollwave.mqtt.topics import command_topic
from tests.artifact_server import ArtifactServer
from tests.engine_side import TENANT, EngineSide, open_engine_side
from tests.servers import Mosquitto
from tests.support import eventually

DEVICE = "dev-1"
CONTENT = b"firmware" * 50_000


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
async def engine_side(broker: EmbeddedBroker) -> AsyncIterator[EngineSide]:
    async with open_engine_side(broker.url) as engine_side:
        yield engine_side


@asynccontextmanager
async def agent(url: str, folder: Path, *, protocol: Protocol = "5", **options: Any) -> AsyncIterator[Agent]:
    plan = AgentPlan(TENANT, DEVICE, folder / "state", limits=Limits(first_wait=0.01), **options)
    agent = Agent(Broker.from_url(url, protocol=protocol), plan)
    life = asyncio.create_task(agent.run())
    try:
        await eventually(lambda: agent.connected or life.done())
        yield agent
    finally:
        life.cancel()
        (ending,) = await asyncio.gather(life, return_exceptions=True)
        assert isinstance(ending, asyncio.CancelledError)


async def test_a_device_reports_every_step_from_command_to_success(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    installed = tmp_path / "installed"
    async with agent(broker.url, tmp_path, install=f"cp {{path}} {installed}"):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE))
    assert engine_side.statuses(DEVICE) == ["DOWNLOADING", "INSTALLING", "SUCCESS"]
    assert all(report["campaign_id"] == 7 and report["attempt"] == 1 for report in engine_side.reports[DEVICE])
    assert installed.read_bytes() == CONTENT


async def test_a_repeated_command_is_answered_and_not_run_again(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, tmp_path):
        for attempt in (1, 1, 2):
            await engine_side.command(DEVICE, 7, url, checksum, attempt=attempt)
        await eventually(lambda: engine_side.outcomes(DEVICE) and engine_side.reports[DEVICE][-1]["attempt"] == 2)
    async with agent(broker.url, tmp_path):
        await engine_side.command(DEVICE, 7, url, checksum, attempt=3)
        await eventually(lambda: engine_side.reports[DEVICE][-1]["attempt"] == 3)
    assert engine_side.reports[DEVICE][-1]["status"] == "SUCCESS"
    assert len(server.requests) == 1


@pytest.mark.parametrize("install", ["sh -c 'echo no room left; exit 1'"])
async def test_a_failed_installation_is_reported_and_run_again_for_a_newer_attempt(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path, install: str
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, tmp_path, install=install):
        await engine_side.command(DEVICE, 7, url, checksum, attempt=1)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
        assert engine_side.reports[DEVICE][-1]["error"] == "install failed (exit 1): no room left"
        await engine_side.command(DEVICE, 7, url, checksum, attempt=2)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED", "FAILED"])
    assert len(server.requests) == 2


async def test_a_file_that_does_not_match_its_checksum_is_a_failure(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    async with agent(broker.url, tmp_path, install="false"):
        await engine_side.command(DEVICE, 7, url, "0" * 64)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
    assert engine_side.reports[DEVICE][-1]["error"].startswith("checksum mismatch: ")
    assert "INSTALLING" not in engine_side.statuses(DEVICE)


async def test_a_file_of_another_size_than_the_commands_is_a_failure(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    async with agent(broker.url, tmp_path, install="false"):
        await engine_side.command(DEVICE, 7, url, size=len(CONTENT) + 1)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
    assert engine_side.reports[DEVICE][-1]["error"].startswith("size mismatch: ")


async def test_without_attempts_on_mqtt_3_a_repeat_after_success_is_answered(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url_v4, tmp_path, protocol="3.1.1"):
        await engine_side.command(DEVICE, 7, url, checksum, attempt=None)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
        await engine_side.command(DEVICE, 7, url, checksum, attempt=None)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS", "SUCCESS"])
    assert "attempt" not in engine_side.reports[DEVICE][-1]
    assert len(server.requests) == 1


async def test_a_device_on_mqtt_3_1_1_runs_each_attempt_without_its_number(
    mosquitto: Mosquitto, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with open_engine_side(mosquitto.url) as engine_side, agent(mosquitto.url, tmp_path, protocol="3.1.1"):
        for attempt in (1, 2):
            await engine_side.command(DEVICE, 7, url, checksum, attempt=attempt)
            await eventually(lambda: engine_side.outcomes(DEVICE))
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS", "SUCCESS"])
    assert len(server.requests) == 1


async def test_an_update_completes_over_a_broker_restart_during_the_download(
    broker: EmbeddedBroker, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    async with agent(broker.url, tmp_path) as device:
        async with open_engine_side(broker.url) as engine_side:
            await engine_side.command(DEVICE, 7, url, checksum)
            await eventually(lambda: engine_side.reports[DEVICE])
            broker.stop()
            await eventually(lambda: not device.connected)
        broker.start()
        async with open_engine_side(broker.url) as engine_side:
            server.script.release.set()
            await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
            await engine_side.command(DEVICE, 8, url, checksum)
            await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"] * 2)
    assert len(server.requests) == 2


async def test_an_update_completes_over_a_device_restart_during_the_download(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 100_000
    part = tmp_path / "state" / "firmware.part"
    async with agent(broker.url, tmp_path):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: part.exists() and part.stat().st_size > 0)
    server.script.hold_at = None
    held = part.stat().st_size
    async with agent(broker.url, tmp_path):
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
    assert server.requests == [None, f"bytes={held}-"]


async def test_an_outcome_that_the_broker_did_not_accept_is_reported_after_a_restart(
    broker: EmbeddedBroker, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    async with agent(broker.url, tmp_path) as device:
        async with open_engine_side(broker.url) as engine_side:
            await engine_side.command(DEVICE, 7, url, checksum)
            await eventually(lambda: engine_side.reports[DEVICE])
        broker.stop()
        server.script.release.set()
        await eventually(lambda: device.state.finished)
    broker.start()
    async with open_engine_side(broker.url) as engine_side, agent(broker.url, tmp_path):
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
    assert len(server.requests) == 1


async def test_commands_wait_for_a_disconnected_device(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, tmp_path):
        pass
    await engine_side.command(DEVICE, 7, url, checksum)
    async with agent(broker.url, tmp_path):
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])


async def test_the_running_campaign_is_finished_before_the_newest_is_started(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    async with agent(broker.url, tmp_path) as device:
        for campaign in (7, 8, 9):
            await engine_side.command(DEVICE, campaign, url, checksum)
        await eventually(lambda: device.state.waiting and device.state.waiting.command.campaign_id == 9)
        server.script.release.set()
        await eventually(lambda: len(engine_side.outcomes(DEVICE)) == 2)
    ended = [report["campaign_id"] for report in engine_side.reports[DEVICE] if report["status"] == "SUCCESS"]
    assert ended == [7, 9]


async def test_invalid_commands_are_ignored(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    topic = command_topic(TENANT, DEVICE)
    bodies = [
        b"",
        b"\xff",
        b"[" * 60_000,
        b'{"campaign_id": 1}',
        encode_command(7, url, "2", checksum).replace(b'"update"', b'"reboot"'),
        encode_command(-7, url, "2", checksum),
    ]
    async with agent(broker.url, tmp_path):
        for body in bodies:
            await (await engine_side.session.publish(topic, body)).acknowledged()
        await engine_side.command(DEVICE, 5, "file:///etc/passwd")
        await engine_side.command(DEVICE, 6, "http://\x00:x/", attempt=1)
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE)[-1:] == ["SUCCESS"])
    assert {report["campaign_id"] for report in engine_side.reports[DEVICE]} <= {5, 6, 7}


async def test_two_devices_with_one_id_do_not_block_each_other_for_ever(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, tmp_path) as device:
        async with Session.connect(Broker.from_url(broker.url), f"{TENANT}:{DEVICE}", persistent=True):
            await eventually(lambda: not device.connected)
        await eventually(lambda: device.connected)
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])


async def cancel(engine_side: EngineSide, campaign: int) -> None:
    receipt = await engine_side.session.publish(command_topic(TENANT, DEVICE), encode_cancel(campaign))
    await receipt.acknowledged()


async def test_a_cancel_command_stops_a_download_and_removes_what_was_downloaded(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = len(CONTENT) // 2
    async with agent(broker.url, tmp_path, install="false") as device:
        await engine_side.command(DEVICE, 7, url, checksum, attempt=3)
        part = tmp_path / "state" / "firmware.part"
        await eventually(lambda: part.exists() and part.stat().st_size)
        await cancel(engine_side, 8)
        await cancel(engine_side, 7)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
        await eventually(lambda: not part.exists())
        assert device.state.running is None
        server.script.release.set()
        await engine_side.command(DEVICE, 9, url, checksum)
        await eventually(lambda: len(engine_side.outcomes(DEVICE)) == 2, what="it takes the next campaign")
    report = next(each for each in engine_side.reports[DEVICE] if each["status"] == "FAILED")
    assert (report["campaign_id"], report["attempt"], report["code"]) == (7, 3, "CANCELLED")
    assert engine_side.reports[DEVICE][-1]["campaign_id"] == 9


async def test_a_cancel_command_does_not_stop_an_installation(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    gate = tmp_path / "gate"
    wait = f"sh -c 'while [ ! -e {gate} ]; do sleep 0.02; done'"
    async with agent(broker.url, tmp_path, install=wait):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: "INSTALLING" in engine_side.statuses(DEVICE))
        await cancel(engine_side, 7)
        gate.touch()
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])


async def test_a_device_begins_within_the_time_of_its_command_and_a_restart_ends_the_wait(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    body = encode_command(7, url, "2.0.0", checksum, start_within=10**9)
    async with agent(broker.url, tmp_path) as device:
        await (await engine_side.session.publish(command_topic(TENANT, DEVICE), body, attempt=1)).acknowledged()
        await eventually(lambda: device.state.running)
        assert not server.requests
    async with agent(broker.url, tmp_path):
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])


async def test_a_device_that_waits_to_begin_can_be_cancelled(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    body = encode_command(7, url, "2.0.0", checksum, start_within=10**9)
    async with agent(broker.url, tmp_path):
        await (await engine_side.session.publish(command_topic(TENANT, DEVICE), body, attempt=1)).acknowledged()
        await cancel(engine_side, 7)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
    assert not server.requests
