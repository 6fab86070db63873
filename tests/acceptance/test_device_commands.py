"""``rollwave device`` and ``rollwave fleet`` at the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.artifact_server import ArtifactServer
from tests.engine_side import TENANT, EngineSide, open_engine_side
from tests.support import Running, eventually, free_port, rollwave, rollwave_running

CONTENT = b"firmware" * 1000


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
async def engine_side(broker: EmbeddedBroker) -> AsyncIterator[EngineSide]:
    async with open_engine_side(broker.url) as engine_side:
        yield engine_side


async def stopped(running: Running, number: signal.Signals = signal.SIGTERM) -> int:
    running.process.send_signal(number)
    return await running.process.wait()


async def test_device_run_updates_survives_sigkill_and_stops_on_sigterm(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    state, installed = tmp_path / "state", tmp_path / "installed"
    arguments = ["device", "run", "--tenant", TENANT, "--device", "dev-1", "--state", str(state)]
    arguments += ["--install", f"cp {{path}} {installed}"]
    settings = {"MQTT_BROKER_URL": broker.url}
    server.script.hold_at = 100
    async with rollwave_running(*arguments, log=tmp_path / "log", env=settings) as device:
        await eventually(lambda: "device_connected" in device.output(), what="connected")
        await engine_side.command("dev-1", 7, url, checksum)
        await eventually(lambda: engine_side.statuses("dev-1") == ["DOWNLOADING"])
        device.process.kill()
        await device.process.wait()
    server.script.hold_at = None
    async with rollwave_running(*arguments, log=tmp_path / "log2", env=settings) as device:
        await eventually(lambda: engine_side.outcomes("dev-1") == ["SUCCESS"])
        assert await stopped(device) == 0
    assert installed.read_bytes() == CONTENT
    assert all(json.loads(line)["ts"] for line in device.output().splitlines())


async def test_a_fleet_ends_when_all_devices_have_reported_and_prints_the_totals(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    arguments = ["fleet", "--tenant", TENANT, "--devices", "20", "--url", broker.url, "--commands", "20"]
    arguments += ["--fail", "0.5", "--step-delay", "0", "-o", "json"]
    async with rollwave_running(*arguments, log=tmp_path / "log") as fleet:
        await eventually(lambda: "fleet_connected" in fleet.output(), what="connected")
        for number in range(1, 21):
            await engine_side.command(f"dev-{number}", 7, url, checksum)
        assert await fleet.process.wait() == 0
    tally = json.loads(fleet.output().splitlines()[-1])
    assert tally["devices"] == tally["succeeded"] + tally["failed"] == tally["downloads"] == 20
    assert 0 < tally["failed"] < 20


async def test_a_fleet_stops_on_ctrl_c_and_prints_the_totals(broker: EmbeddedBroker, tmp_path: Path) -> None:
    arguments = ["fleet", "--tenant", TENANT, "--devices", "5", "--url", broker.url]
    async with rollwave_running(*arguments, log=tmp_path / "log") as fleet:
        await eventually(lambda: "fleet_progress" in fleet.output(), what="running")
        assert await stopped(fleet, signal.SIGINT) == 0
    assert "succeeded" in fleet.output()


@pytest.mark.parametrize(("wanted", "code"), [([], 0), (["--commands", "1"], 4)])
def test_a_fleet_stops_when_its_given_time_is_over(broker: EmbeddedBroker, wanted: list[str], code: int) -> None:
    done = rollwave("fleet", "--tenant", TENANT, "--devices", "5", "--url", broker.url, "--for", "0.3", *wanted)
    assert done.returncode == code
    assert "commands" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["device", "run", "--tenant", "a/b", "--device", "d"], 2, "--tenant"),
        (["fleet", "--tenant", "north", "--devices", "1", "--prefix", "a/b"], 2, "--prefix"),
        (["fleet", "--tenant", "north", "--devices", "1", "--fail", "2"], 2, "--fail"),
        (["fleet", "--tenant", "north", "--devices", "1", "--url", "http://host"], 1, "hint: "),
        (["device", "run", "--tenant", "north", "--device", "d", "--install", "'oops"], 1, "hint: "),
    ],
)
def test_wrong_arguments_of_device_commands_are_explained(
    tmp_path: Path, arguments: list[str], code: int, expected: str
) -> None:
    state = ["--state", str(tmp_path)] if arguments[0] == "device" else []
    done = rollwave(*arguments, *state, env={"MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}"})
    assert done.returncode == code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
