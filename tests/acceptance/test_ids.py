"""Ids with unusual characters at the command line, with a simulated fleet and the reference agent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.installation import Installation, installed
from tests.support import eventually, rollwave, rollwave_running

TENANT = "Süd 1"
GROUP = "Halle 1? 100 % (gerät@1)"
AGENT = "a..b \u202e\U0001f469\u200d\U0001f527"


@pytest.fixture
async def south(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as north:
        key = north.do("apikey", "create", "--tenant", TENANT, "--role", "operator").strip()
        yield Installation(north.database, north.broker, north.env | {"ROLLWAVE_API_KEY": key})


async def test_a_campaign_completes_on_devices_with_all_kinds_of_ids(south: Installation, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_text(f"device_id\nPump 1\nPump 2\n{AGENT}\n", encoding="utf-8")
    assert f"group {GROUP}: 3 devices" in south.do("device-group", "import", GROUP, str(table))
    assert "Pump 2" in south.do("device-group", "show", GROUP)
    assert south.do("device-group", "put", "..", "Pump 1").startswith("group ..: 1 devices")
    south.do("firmware", "add", "http://files.example/fw.bin", "--version", "2.0")
    fleet = ["fleet", "--tenant", TENANT, "--prefix", "Pump ", "--devices", "2", "--no-download", "--step-delay", "0"]
    agent = ["device", "run", "--tenant", TENANT, "--device", AGENT, "--state", str(tmp_path / "state")]
    async with (
        rollwave_running(*fleet, log=tmp_path / "fleet.log", env=south.env) as pumps,
        rollwave_running(*agent, log=tmp_path / "agent.log", env=south.env) as single,
    ):
        await eventually(lambda: "fleet_connected" in pumps.output() and "device_connected" in single.output())
        made = south.run(
            "campaign",
            "create",
            "spring",
            "--firmware",
            "2.0",
            "--group",
            GROUP,
            "--start",
            "--max-attempts",
            "1",
            "--abort-threshold",
            "1",
        )
        assert made.returncode == 0, made.stderr

        def reported() -> bool:
            rows = json.loads(south.do("campaign", "devices", "1", "-o", "json"))["devices"]
            return {row["device_id"]: row["status"] for row in rows}.get(AGENT) == "DOWNLOADING" and sum(
                row["status"] == "SUCCESS" for row in rows
            ) == 2

        await eventually(reported, what="the agent has its command, and the pumps are done")
    listed = south.do("campaign", "devices", "1")
    assert "Pump 1" in listed
    assert "a..b \\u202e\U0001f469\\u200d\U0001f527" in listed, "invisible characters are escaped"
    assert "\u202e" not in listed


@pytest.mark.parametrize(
    "words",
    [
        ("device", "run", "--tenant", TENANT, "--device", "a/b"),
        ("device-group", "show", "$a"),
        ("fleet", "--tenant", " a", "--devices", "1"),
    ],
)
def test_an_invalid_id_is_a_usage_error(words: tuple[str, ...]) -> None:
    refused = rollwave(*words)
    assert refused.returncode == 2
    assert "1 to 128 characters" in " ".join(refused.stderr.replace("│", " ").split())
