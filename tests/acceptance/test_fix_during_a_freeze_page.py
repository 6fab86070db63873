"""Every command of the page about an emergency fix during a freeze is run, in order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.installation import TENANT, Installation, installed
from tests.support import environment, eventually, rollwave_running

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "fix-during-a-freeze.md").read_text("utf-8")


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        yield installation


def run(north: Installation, script: str, folder: Path) -> str:
    """Run a block of the page in the reader's shell."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env=environment(**north.env) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (script, done.stdout, done.stderr)
    return done.stdout


async def test_the_page_can_be_followed(north: Installation, tmp_path: Path) -> None:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    scripts = [re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks]
    freeze, ordinary, policy, fix, look, halt, thaw = scripts
    north.do("device-group", "put", "all", *(f"dev-{number}" for number in range(1, 7)))
    for version in ("2.0", "1.9.1"):
        north.do("firmware", "add", f"http://files.example/{version}.bin", "--version", version)
    fleet = ["fleet", "--tenant", TENANT, "--devices", "6", "--no-download", "--step-delay", "0"]
    async with rollwave_running(*fleet, log=tmp_path / "fleet.log", env=north.env) as running:
        await eventually(lambda: "fleet_connected" in running.output())
        assert "year-end" in run(north, freeze, tmp_path)
        assert "the freeze year-end is in force" in run(north, ordinary, tmp_path)
        run(north, policy, tmp_path)
        started = run(north, fix, tmp_path)
        assert "Campaign 2 is RUNNING." in started
        refused = north.run("campaign", "start", "1")
        assert refused.returncode == 0, "the ordinary campaign needs no approver"
        await eventually(lambda: "1 SUCCESS" in north.do("campaign", "show", "2"))
        await eventually(lambda: "the soak ends at" in run(north, look, tmp_path))
        assert "topped by" not in north.do("campaign", "show", "2"), "the policy of the fix ignores freezes"
        assert "freeze year-end until 2099-01-07 00:00 UTC: the shops" in north.do("campaign", "show", "1")
        assert "freeze year-end is in force until" in north.run("campaign", "list").stderr
        watched = north.run("campaign", "watch", "1", "--timeout", "0").stdout
        assert "(Stopped by the freeze year-end until 2099-01-07 00:00 UTC: the shops are open" in watched
        assert "PENDING" in north.do("campaign", "devices", "1"), "the freeze still stops the ordinary campaign"
        halted = [line for line in run(north, halt, tmp_path).splitlines() if line.startswith("sending is")]
        assert ["sending is halted" in line for line in halted] == [True, True, False]
        assert sent_to(north, 2) == 1, "the fix that was withdrawn is not sent to another device"
        assert north.do("halt", "--all", "--reason", "test") == "sending is halted for 1 tenant\n"
        run(north, thaw, tmp_path)
        assert "halted since" in north.do("halt", "--show")
        assert north.do("halt", "--all", "--lift") == "sending is not halted for 1 tenant\n"
        watched = north.do("campaign", "watch", "1", "--timeout", "60")
    assert "COMPLETED" in watched
    assert sent_to(north, 2) == 1


def sent_to(north: Installation, campaign: int) -> int:
    """Number of devices that the campaign has ever sent to."""
    shown = json.loads(north.do("campaign", "show", str(campaign), "-o", "json"))
    assert shown["status"] == "ABORTED"
    return int(shown["sent"])
