"""The how-tos about policies can be followed: each command is run in order, while the database's clock is moved."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.fleet.faults import Fault
from rollwave.fleet.population import FleetPlan
from rollwave.fleet.simulation import Fleet
from rollwave.mqtt.broker import Broker
from tests.installation import TENANT, Installation, installed
from tests.moved_clock import Clock
from tests.pages import commands, run
from tests.support import eventually, rollwave_running


@pytest.fixture
async def north(moved_database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(moved_database, broker.url, tmp_path / "serve.log") as installation:
        installation.do("firmware", "add", "http://files.example/fw.bin", "--version", "2.0")
        yield installation


@asynccontextmanager
async def fleet(north: Installation, *names: str, faults: Mapping[str, Fault] | None = None) -> AsyncIterator[None]:
    """Devices with these names, which succeed, except for those with ``faults``."""
    plan = FleetPlan(
        TENANT, names, download=False, connections=2, behaviour=lambda device, _: (faults or {}).get(device)
    )
    async with Fleet(Broker.from_url(north.broker), plan) as running:
        await running.ready
        yield


@dataclass(frozen=True, slots=True)
class Reader:
    """Follows a page in a folder of its own, while devices go on."""

    installation: Installation
    folder: Path

    async def runs(self, script: str) -> str:
        return await asyncio.to_thread(run, self.installation, script, self.folder)

    async def sees(self, script: str, text: str) -> None:
        """Repeat the commands until they show this."""
        shown: list[str] = []

        async def there() -> bool:
            shown[:] = [await self.runs(script)]
            return text in shown[0]

        try:
            await eventually(there, timeout=30, what=text)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {shown}") from None


async def test_a_canary_with_a_soak_time(north: Installation, clock: Clock, tmp_path: Path) -> None:
    reader = Reader(north, tmp_path)
    label, policy, start, look, watch = commands("canary-with-soak.md")
    assert (await reader.runs(label)).count("dev-") == 3
    assert "canary.yaml is valid" in await reader.runs(policy)
    async with fleet(north, *(f"dev-{number}" for number in range(1, 7))):
        await reader.runs(start)
        await reader.sees(look, "the soak ends at")
        assert "canary (1 of 2): soaking until " in await reader.runs(look)
        clock.forward(hours=1)
        await reader.sees(look, "the soak ends at")
        clock.forward(hours=1, minutes=1)
        assert "COMPLETED  6 SUCCESS" in await reader.runs(watch)


async def test_a_bad_hardware_revision(north: Installation, tmp_path: Path) -> None:
    reader = Reader(north, tmp_path)
    label, policy, start, look, failures, release = commands("bad-hardware-revision.md")
    await reader.runs(label)
    assert "revisions.yaml is valid" in await reader.runs(policy)
    does_not_boot = Fault(code="E_BOOT")
    bad = {f"pump-c-{number}": does_not_boot for number in range(1, 10)}
    async with fleet(north, *(f"pump-b-{number}" for number in range(1, 4)), *bad, faults=bad):
        await reader.runs(start)
        await reader.sees(look, "revision, hardware_revision=C: under quarantine")
        await reader.sees(look, "segment 2 (hardware_revision=C) is under quarantine: guardrail revision: ")
        explained = await reader.runs("rollwave campaign devices 1 --status PENDING | tail -1")
        [held] = re.findall(r"^pump-c-\d", explained)
        await reader.sees(f"rollwave campaign explain 1 {held}", "segment 2 (hardware_revision=C) is under quarantine")
        await reader.sees("rollwave campaign show 1", "3 SUCCESS")
        shown = await reader.runs(failures)
        assert shown.count("E_BOOT") >= 5
        assert re.search(r"^ *2 .*hardware_revision=C", shown, re.MULTILINE), shown
        bad.clear()
        assert "segment 1 of campaign 1 was not under quarantine" in await reader.runs("rollwave campaign release 1 1")
        released = await reader.runs(release)
        assert "segment 2 of campaign 1 is released" in released
        assert "COMPLETED  12 SUCCESS" in released


async def test_night_windows(north: Installation, clock: Clock, tmp_path: Path) -> None:
    reader = Reader(north, tmp_path)
    zones, policy, start, waiting, done = commands("night-windows.md")
    clock.set("2027-01-11T12:00:00Z")
    await reader.runs(zones)
    assert "night.yaml is valid" in await reader.runs(policy)
    async with fleet(north, "pump-berlin", "pump-tokyo", "pump-somewhere"):
        await reader.runs(start)
        await reader.sees(waiting, "window night opens at 2027-01-12 02:00 in Asia/Tokyo (2027-01-11 17:00 UTC)")
        assert "Europe/Berlin" in await reader.runs(waiting)
        clock.set("2027-01-11T17:00:01Z")
        await reader.sees(done, "pump-tokyo")
        assert "pump-berlin" not in await reader.runs(done)


async def test_simulated_devices(database: str, broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        reader = Reader(installation, tmp_path)
        firmware, group, simulate, campaign = commands("simulated-devices.md")
        await reader.runs(firmware + group)
        _, *arguments = shlex.split(simulate)
        async with rollwave_running(*arguments, log=tmp_path / "fleet.log", env=installation.env) as running:
            await eventually(lambda: "fleet_connected" in running.output())
            assert "COMPLETED  6 SUCCESS" in await reader.runs(campaign)
