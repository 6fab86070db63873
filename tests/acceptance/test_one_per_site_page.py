"""Every command of the page about one device of each site at a time is run, in order."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.acceptance.test_fix_during_a_freeze_page import run
from tests.engine import Command, devices
from tests.installation import Installation, installed
from tests.support import eventually

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "one-per-site.md").read_text("utf-8")


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        yield installation


def succeeds(command: Command) -> list[bytes]:
    return [json.dumps({"campaign_id": command.campaign, "status": "SUCCESS"}).encode()]


async def test_the_page_can_be_followed(north: Installation, tmp_path: Path) -> None:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    labels, policy, create, look, watch = [re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks]
    north.do("firmware", "add", "http://files.example/fw.bin", "--version", "2.0")
    run(north, labels, tmp_path)
    run(north, policy, tmp_path)
    async with devices(north.broker) as silent:
        run(north, create, tmp_path)
        await eventually(lambda: len(silent.commands) == 2)
        sites = {each.device.partition("-")[0] for each in silent.commands}
        assert sites == {"north", "south"}

        def waiting() -> list[tuple[str, int]]:
            found = json.loads(north.do("campaign", "waiting", "1", "-o", "json"))
            return [(each["reason"], each["devices"]) for each in found["waiting"]]

        await eventually(lambda: waiting() == [("budget", 2)])
        looked = run(north, look, tmp_path)
        assert "1 with the same site (one-per-site)" in re.sub(r"\s+", " ", looked)
        assert "north-a is " in looked
        [held, _] = re.findall(r"^((?:north|south)-[ab]) +PENDING", looked, re.MULTILINE)
        explained = re.sub(r"\s+", " ", north.do("campaign", "explain", "1", held))
        assert "1 device is in flight with site" in explained

    async with devices(north.broker, succeeds) as working:
        for each in silent.commands:
            working.report(each.device, each.campaign, "SUCCESS")
        assert "COMPLETED  4 SUCCESS" in await asyncio.to_thread(run, north, watch, tmp_path)
