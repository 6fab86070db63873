"""The simulated fleet on a real broker: its summary agrees with the reports that arrive."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet import Fault, FaultRates, Fleet, FleetPlan, Stage
from rollwave.fleet.faults import profile
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import Command, encode_cancel, encode_command
from rollwave.mqtt.topics import command_topic
from tests.artifact_server import ArtifactServer
from tests.engine_side import TENANT, EngineSide, open_engine_side
from tests.support import eventually

IDS = [f"dev-{number}" for number in range(1, 101)]
CONTENT = b"firmware" * 1000


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
async def engine_side(broker: EmbeddedBroker) -> AsyncIterator[EngineSide]:
    async with open_engine_side(broker.url) as engine_side:
        yield engine_side


def fleet(broker: EmbeddedBroker, plan: FleetPlan) -> Fleet:
    return Fleet(Broker.from_url(broker.url), plan)


async def test_two_thousand_devices_each_download_and_report_once(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer
) -> None:
    url, checksum = server.put(CONTENT)
    ids = [f"dev-{number}" for number in range(2000)]
    async with fleet(broker, FleetPlan(TENANT, ids)) as simulated:
        await simulated.ready
        body = encode_command(7, url, "2.0.0", checksum)
        for device in ids:
            await engine_side.session.publish(command_topic(TENANT, device), body, attempt=1)
        await eventually(lambda: simulated.tally.finished == 2000, timeout=60)
        await eventually(lambda: sum(len(engine_side.outcomes(device)) for device in ids) == 2000)
    tally = simulated.tally
    assert (tally.commands, tally.devices, tally.succeeded, tally.duplicates) == (2000, 2000, 2000, 0)
    assert (tally.downloads, tally.bytes) == (2000, 2000 * len(CONTENT))
    assert all(engine_side.statuses(device) == ["DOWNLOADING", "INSTALLING", "SUCCESS"] for device in ids)
    assert all(report["attempt"] == 1 for reports in engine_side.reports.values() for report in reports)


async def test_the_devices_chosen_by_the_seed_are_those_that_fail(
    broker: EmbeddedBroker, engine_side: EngineSide
) -> None:
    rates = FaultRates(fail=0.3, fail_stage=Stage.DOWNLOAD, mute=0.2, duplicate=0.3, reorder=0.3)
    profiles = {device: profile(5, device, rates) for device in IDS}
    mute = {device for device in IDS if (fault := profiles[device].fault) and fault.silent}
    failing = {device for device in IDS if profiles[device].fault} - mute
    async with fleet(broker, FleetPlan(TENANT, IDS, seed=5, faults=rates, download=False)) as simulated:
        await simulated.ready
        for device in IDS:
            await engine_side.command(device, 7, "http://host/fw")
        await eventually(lambda: simulated.tally.finished == len(IDS) - len(mute))
        expected = sum(_reports(device in failing, profiles[device].duplicate) for device in set(IDS) - mute)
        await eventually(lambda: sum(map(len, engine_side.reports.values())) == expected)
    assert simulated.tally.failed == len(failing) > 0
    assert mute
    assert not mute & engine_side.reports.keys()
    for device in failing:
        assert set(engine_side.outcomes(device)) == {"FAILED"}
    for device in set(IDS) - mute:
        statuses = engine_side.statuses(device)
        assert (statuses[0] in {"SUCCESS", "FAILED"}) is profiles[device].reorder
    assert Counter(simulated.received.values()) == {1: len(IDS)}


def _reports(fails: bool, duplicate: bool) -> int:
    return (2 if fails else 3) * (2 if duplicate else 1)


async def test_a_release_can_fail_on_some_devices(broker: EmbeddedBroker, engine_side: EngineSide) -> None:
    def behaviour(device_id: str, command: Command) -> Fault | None:
        bad = command.version == "2.2.0" and device_id.endswith("1")
        return Fault(Stage.INSTALL, "no driver for revision B") if bad else None

    plan = FleetPlan(TENANT, IDS, download=False, behaviour=behaviour)
    async with fleet(broker, plan) as simulated:
        await simulated.ready
        for campaign, version in ((1, "2.1.0"), (2, "2.2.0")):
            for device in IDS:
                await engine_side.command(device, campaign, "http://host/fw", version=version)
            await eventually(lambda: simulated.tally.finished == len(IDS) * campaign)  # noqa: B023
        await eventually(lambda: len(engine_side.outcomes("dev-1")) == 2)
    assert Counter(simulated.outcomes[1].values()) == {"SUCCESS": 100}
    assert Counter(simulated.outcomes[2].values()) == {"SUCCESS": 90, "FAILED": 10}
    assert engine_side.reports["dev-1"][-1]["error"] == "no driver for revision B"


async def test_a_repeated_command_is_a_duplicate_and_a_newer_attempt_after_a_failure_is_not(
    broker: EmbeddedBroker, engine_side: EngineSide
) -> None:
    plan = FleetPlan(TENANT, IDS, faults=FaultRates(fail=1.0), download=False)
    async with fleet(broker, plan) as simulated:
        await simulated.ready
        await engine_side.command("dev-1", 7, "http://host/fw", attempt=1)
        await eventually(lambda: len(engine_side.outcomes("dev-1")) == 1)
        await engine_side.command("dev-1", 7, "http://host/fw", attempt=1)
        await eventually(lambda: len(engine_side.outcomes("dev-1")) == 2)
        await engine_side.command("dev-1", 7, "http://host/fw", attempt=2)
        await eventually(lambda: len(engine_side.outcomes("dev-1")) == 3)
    assert (simulated.tally.commands, simulated.tally.duplicates, simulated.tally.failed) == (3, 1, 1)


async def test_a_simulated_device_reports_a_bad_artifact(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer
) -> None:
    url, _ = server.put(CONTENT)
    async with fleet(broker, FleetPlan(TENANT, IDS)) as simulated:
        await simulated.ready
        await engine_side.command("dev-1", 7, url, "0" * 64)
        await engine_side.command("dev-2", 7, server.url("missing"))
        await engine_side.command("dev-3", 7, "file:///etc/passwd")
        await engine_side.command("dev-4", 7, url, size=len(CONTENT) - 1)
        await engine_side.command("dev-5", 7, server.put(b"", "empty")[0])
        await engine_side.command("dev-6", 7, url, size=len(CONTENT))
        await eventually(lambda: simulated.tally.failed == 5)
        await eventually(lambda: all(engine_side.outcomes(f"dev-{number}") for number in range(1, 7)))
    assert engine_side.reports["dev-1"][-1]["error"].startswith("checksum mismatch")
    assert "404" in engine_side.reports["dev-2"][-1]["error"]
    assert engine_side.reports["dev-4"][-1]["error"].startswith("size mismatch")
    assert "0 bytes" in engine_side.reports["dev-5"][-1]["error"]
    assert engine_side.outcomes("dev-6") == ["SUCCESS"]


async def test_a_fleet_reconnects_after_a_broker_restart_and_sends_its_waiting_reports(
    broker: EmbeddedBroker, server: ArtifactServer
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    async with fleet(broker, FleetPlan(TENANT, IDS)) as simulated:
        async with open_engine_side(broker.url) as engine_side:
            await simulated.ready
            await engine_side.command("dev-1", 7, url, checksum)
            await eventually(lambda: engine_side.reports["dev-1"])
            broker.stop()
            await eventually(lambda: not simulated.connected)
        broker.start()
        async with open_engine_side(broker.url) as engine_side:
            server.script.release.set()
            await eventually(lambda: engine_side.outcomes("dev-1") == ["SUCCESS"])
            await simulated.ready
            await engine_side.command("dev-2", 7, url, checksum)
            await eventually(lambda: engine_side.outcomes("dev-2") == ["SUCCESS"])


async def test_closing_a_fleet_leaves_no_session_or_task(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.hold_at = 1000
    before = asyncio.all_tasks()
    async with fleet(broker, FleetPlan(TENANT, IDS, step_delay=30)) as simulated:
        await simulated.ready
        for device in IDS:
            await engine_side.command(device, 7, url, checksum)
        await eventually(lambda: simulated.tally.devices == len(IDS))
    await eventually(lambda: asyncio.all_tasks() == before)
    async with Session.connect(Broker.from_url(broker.url), simulated.client_id, persistent=True) as session:
        assert not session.session_present


async def test_a_fleet_can_be_closed_while_the_broker_is_unavailable(broker: EmbeddedBroker) -> None:
    async with asyncio.timeout(10), fleet(broker, FleetPlan(TENANT, IDS)) as simulated:
        await simulated.ready
        broker.stop()
        await eventually(lambda: not simulated.connected)


async def test_devices_that_wait_to_begin_can_be_cancelled_and_take_the_next_campaign(
    broker: EmbeddedBroker, engine_side: EngineSide, server: ArtifactServer
) -> None:
    url, checksum = server.put(CONTENT)
    async with fleet(broker, FleetPlan(TENANT, IDS)) as simulated:
        await simulated.ready
        for body in (
            encode_command(7, url, "2.0.0", checksum, start_within=10**9),
            encode_command(8, url, "2.0.1", checksum),
            encode_cancel(7),
        ):
            for device in IDS:
                await engine_side.session.publish(command_topic(TENANT, device), body, attempt=1)
        await eventually(lambda: all(len(engine_side.outcomes(device)) == 2 for device in IDS))
    assert all(engine_side.outcomes(device) == ["FAILED", "SUCCESS"] for device in IDS)
    assert all(each["campaign_id"] == 7 for each in _failures(engine_side))
    assert all(each["code"] == "CANCELLED" for each in _failures(engine_side))
    assert simulated.cancels == dict.fromkeys(IDS, 1)
    assert simulated.tally.downloads == len(IDS)


def _failures(engine_side: EngineSide) -> list[dict[str, Any]]:
    return [each for reports in engine_side.reports.values() for each in reports if each["status"] == "FAILED"]
