"""The reference device with a full disk, a broker that accepts nothing, or a server without the file.

In each case its outcome is reported, and it can be started again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rollwave.device.agent import Agent, AgentPlan
from rollwave.device.decide import Job, State
from rollwave.device.download import Limits
from rollwave.domain.execution import ExecutionStatus
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.broker import Broker, Protocol
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import NOTHING_TO_DO, Command, encode_command
from rollwave.mqtt.topics import ASK_FILTER, command_topic
from tests import servers
from tests.artifact_server import ArtifactServer
from tests.engine_side import TENANT, EngineSide, open_engine_side
from tests.servers import Mosquitto
from tests.support import eventually

DEVICE = "dev-1"
CONTENT = b"firmware" * 1000


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
async def engine_side(broker: EmbeddedBroker) -> AsyncIterator[EngineSide]:
    async with open_engine_side(broker.url) as engine_side:
        yield engine_side


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    with servers.small_disk(tmp_path / "disk") as folder:
        yield folder


@asynccontextmanager
async def agent(
    url: str, state: Path, *, protocol: Protocol = "5", welcome: bool = True, **options: Any
) -> AsyncIterator[Agent]:
    """Run the agent. Yields once it is connected, unless ``welcome`` is false."""
    plan = AgentPlan(TENANT, DEVICE, state, limits=Limits(first_wait=0.01), **options)
    agent = Agent(Broker.from_url(url, protocol=protocol), plan)
    life = asyncio.create_task(agent.run())
    try:
        await eventually(lambda: agent.connected or life.done() or not welcome)
        yield agent
    finally:
        life.cancel()
        (ending,) = await asyncio.gather(life, return_exceptions=True)
        assert isinstance(ending, asyncio.CancelledError)


def error(engine_side: EngineSide) -> str:
    """The error message of the last report."""
    text: str = engine_side.reports[DEVICE][-1]["error"]
    return text


def fill(disk: Path) -> Path:
    """Fill the file system."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    return filler


async def test_an_artifact_larger_than_the_disk_is_reported_and_the_next_one_installed(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, small_disk: Path
) -> None:
    url, checksum = server.put(b"x" * 2_000_000)
    async with agent(broker.url, small_disk / "state"):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
    assert error(engine_side) == "cannot write the download: No space left on device"
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, small_disk / "state") as device:
        assert device.state.finished[0].delivered
        await engine_side.command(DEVICE, 8, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED", "SUCCESS"])


async def test_a_full_disk_leaves_space_for_the_devices_state(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, small_disk: Path
) -> None:
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, small_disk / "state"):
        await engine_side.command(DEVICE, 6, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
        fill(small_disk)
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS", "FAILED"])
    assert "No space left on device" in error(engine_side)
    async with agent(broker.url, small_disk / "state") as device:
        assert [job.command.campaign_id for job in device.state.finished] == [7, 6]


async def test_a_disk_that_is_full_from_the_start_is_reported(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, small_disk: Path
) -> None:
    url, checksum = server.put(CONTENT)
    (small_disk / "state").mkdir()
    filler = fill(small_disk)
    for campaign in (7, 8):
        async with agent(broker.url, small_disk / "state"):
            await engine_side.command(DEVICE, campaign, url, checksum)
            await eventually(
                lambda: engine_side.reports[DEVICE] and engine_side.reports[DEVICE][-1]["status"] == "FAILED"
            )
            assert engine_side.reports[DEVICE].pop()["campaign_id"] == campaign
            engine_side.reports[DEVICE].clear()
    async with agent(broker.url, small_disk / "state"):
        filler.unlink()
        await engine_side.command(DEVICE, 9, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])


async def test_an_update_is_not_installed_if_the_state_cannot_be_saved(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    (tmp_path / "state.json" / "x").mkdir(parents=True)  # No file can replace it.
    for campaign in (7, 8):
        async with agent(broker.url, tmp_path, install=f"touch {tmp_path}/installed"):
            await engine_side.command(DEVICE, campaign, url, checksum)
            await eventually(lambda: engine_side.outcomes(DEVICE)[-1:] == ["FAILED"])
        assert error(engine_side).startswith(f"cannot save the device's state in {tmp_path}: ")
        engine_side.reports[DEVICE].clear()
    assert not (tmp_path / "installed").exists()


async def test_an_update_fails_if_its_state_directory_vanishes_and_the_next_succeeds(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    state = tmp_path / "state"
    async with agent(broker.url, state):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually((state / "firmware.part").exists)
        shutil.rmtree(state)
        server.script.release.set()
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
        assert "No such file or directory" in error(engine_side)
        await engine_side.command(DEVICE, 8, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED", "SUCCESS"])


@pytest.mark.parametrize(
    "command",
    [
        {"firmware_url": 5},
        {"firmware_url": None},
        {"campaign_id": "7"},
        {"checksum": 5},
        {"version": []},
        {"signature": "of another version"},
    ],
)
async def test_a_state_file_of_another_version_is_read_as_far_as_possible(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path, command: dict[str, object]
) -> None:
    url, checksum = server.put(CONTENT)
    job = json.loads(json.dumps(asdict(Job(Command(7, url, "2", checksum)))))
    job["command"] |= command
    document = {"running": job, "waiting": None, "finished": [job, 5], "schema": 9}
    (tmp_path / "state.json").write_text(json.dumps(document))
    async with agent(broker.url, tmp_path):
        await engine_side.command(DEVICE, 8, url, checksum)
        await eventually(
            lambda: 8 in [each["campaign_id"] for each in engine_side.reports[DEVICE] if each["status"] == "SUCCESS"]
        )
    ran = [each["campaign_id"] for each in engine_side.reports[DEVICE] if each["status"] == "SUCCESS"]
    assert ran == ([7, 8] if "signature" in command else [8])


async def test_an_artifact_changed_during_an_installation_is_downloaded_again(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    """As after a loss of power."""
    url, checksum = server.put(CONTENT)
    state = State(running=Job(Command(7, url, "2", checksum), 1, ExecutionStatus.INSTALLING))
    (tmp_path / "state.json").write_text(json.dumps(asdict(state)))
    (tmp_path / "firmware.bin").write_bytes(b"")
    async with agent(broker.url, tmp_path, install=f"cp {{path}} {tmp_path}/installed"):
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["SUCCESS"])
    assert (tmp_path / "installed").read_bytes() == CONTENT


async def test_an_invalid_proxy_fails_the_download(
    broker: EmbeddedBroker,
    engine_side: EngineSide,
    server: ArtifactServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, checksum = server.put(CONTENT)
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    async with agent(broker.url, tmp_path):
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
        assert "proxy" in error(engine_side)
        monkeypatch.delenv("ALL_PROXY")
        await engine_side.command(DEVICE, 8, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED", "SUCCESS"])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_an_error_longer_than_the_broker_accepts_is_shortened(
    server: ArtifactServer, tmp_path: Path, protocol: Protocol
) -> None:
    url, checksum = server.put(CONTENT)
    says = "sh -c 'head -c 4000 /dev/zero | tr \"\\\\0\" x; exit 1'"
    with Mosquitto(tmp_path, config="max_packet_size 600\n") as broker:
        async with (
            open_engine_side(broker.url) as engine_side,
            agent(broker.url, tmp_path / "state", protocol=protocol, install=says),
        ):
            await engine_side.command(DEVICE, 7, url, checksum)
            await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED"])
            assert error(engine_side).startswith("install failed (exit 1): xxx")
            assert len(error(engine_side)) == 100
            await engine_side.command(DEVICE, 8, url, "0" * 64)
            await eventually(lambda: engine_side.outcomes(DEVICE) == ["FAILED", "FAILED"])
            assert error(engine_side).startswith("checksum mismatch")


def left_behind(*campaigns: int) -> str:
    """The state of a device whose outcomes the broker has never acknowledged."""
    jobs = [
        Job(Command(campaign, "http://h/f", "2", ""), 1, ExecutionStatus.FAILED, "why " * 200) for campaign in campaigns
    ]
    return json.dumps(asdict(State(finished=tuple(jobs))))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_broker_that_accepts_a_hundred_bytes_gets_the_shortest_report(
    tmp_path: Path, protocol: Protocol
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text(left_behind(7, 8))
    with Mosquitto(tmp_path, config="max_packet_size 100\n") as broker:
        async with (
            open_engine_side(broker.url) as engine_side,
            agent(broker.url, tmp_path / "state", protocol=protocol, welcome=False),
        ):
            await eventually(lambda: len(engine_side.outcomes(DEVICE)) == 2, timeout=60)
    assert sorted(engine_side.reports[DEVICE], key=str) == [
        {"campaign_id": number, "status": "FAILED"} for number in (7, 8)
    ]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_report_that_is_too_large_does_not_block_later_ones(tmp_path: Path, protocol: Protocol) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text(left_behind(10**15, 7))  # The older outcome is sent first.
    with Mosquitto(tmp_path, config="max_packet_size 85\n") as broker:
        async with (
            open_engine_side(broker.url) as engine_side,
            agent(broker.url, tmp_path / "state", protocol=protocol, welcome=False) as device,
        ):
            await eventually(lambda: device.state.finished[1].delivered, timeout=60)
            assert not device.state.finished[0].delivered
            await eventually(lambda: engine_side.reports[DEVICE])
    assert engine_side.reports[DEVICE] == [{"campaign_id": 7, "status": "FAILED"}]


@asynccontextmanager
async def answering(url: str, *answers: bytes) -> AsyncIterator[list[str]]:
    """Answer a device's questions with these answers, one each. Yields the topics of the questions."""
    asked: list[str] = []

    async def answer(session: Session) -> None:
        async for incoming in session.messages():
            asked.append(incoming.topic)
            if len(asked) <= len(answers):
                await session.publish(command_topic(TENANT, DEVICE), answers[len(asked) - 1], attempt=1)

    async with Session.connect(Broker.from_url(url)) as session:
        await session.subscribe(ASK_FILTER)
        task = asyncio.create_task(answer(session))
        try:
            yield asked
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def refused(
    broker: EmbeddedBroker,
    engine_side: EngineSide,
    server: ArtifactServer,
    folder: Path,
    statuses: list[int],
    *answers: bytes,
) -> tuple[list[str], int]:
    """Run a device whose server refuses it with this status. Returns its outcomes and the number of questions."""
    url, checksum = server.put(CONTENT)
    async with agent(broker.url, folder, answer_timeout=1.0):
        pass  # it is known to the broker from now on, and asks for no other reason
    async with answering(broker.url, *answers) as asked, agent(broker.url, folder, answer_timeout=1.0):
        server.script.statuses = statuses
        await engine_side.command(DEVICE, 7, url, checksum)
        await eventually(lambda: engine_side.outcomes(DEVICE))
    return engine_side.outcomes(DEVICE), len(asked)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_refused_download_asks_for_the_command_and_is_tried_once_more(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path, status: int
) -> None:
    url, checksum = server.put(CONTENT)
    body = encode_command(7, url, "2.0.0", checksum)
    assert await refused(broker, engine_side, server, tmp_path, [status], body) == (["SUCCESS"], 1)
    assert len(server.requests) == 2


async def test_a_download_refused_twice_is_a_failure(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    body = encode_command(7, url, "2.0.0", checksum)
    assert await refused(broker, engine_side, server, tmp_path, [403] * 5, body, body) == (["FAILED"], 1)
    assert error(engine_side) == "cannot download: HTTP 403"
    assert len(server.requests) == 2


async def test_a_download_that_is_no_longer_wanted_is_not_tried_again(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    assert await refused(broker, engine_side, server, tmp_path, [403], NOTHING_TO_DO) == (["FAILED"], 1)
    assert len(server.requests) == 1


async def test_without_an_answer_a_refused_download_is_tried_once_more(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    assert await refused(broker, engine_side, server, tmp_path, [403]) == (["SUCCESS"], 1)


async def test_a_repeated_command_with_a_new_url_is_tried(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    fresh, checksum = server.put(CONTENT, "fresh.bin")
    body = encode_command(7, fresh, "2.0.0", checksum)
    server.files.pop("/fw.bin", None)
    assert await refused(broker, engine_side, server, tmp_path, [403], body) == (["SUCCESS"], 1)
