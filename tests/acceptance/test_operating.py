"""An operator uses the command line against a whole installation."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.groups import targeting_held_after_first_batch
from tests.installation import TENANT, Installation, installed, run_on_a_terminal
from tests.support import environment, eventually, free_port, program, psql, rollwave, rollwave_running

URL = "http://files.example/fw.bin"


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        yield installation


def prepared(north: Installation, tmp_path: Path, devices: int) -> None:
    """Create a group `all` from a file, and a firmware 2.0."""
    table = tmp_path / "devices.csv"
    rows = "".join(f"dev-{number},B\n" for number in range(1, devices + 1))
    table.write_text(f"\ufeffdevice_id,rev\n{rows}")
    assert f"group all: {devices} devices" in north.do("device-group", "import", "all", str(table))
    north.do("firmware", "add", URL, "--version", "2.0")


async def test_a_campaign_on_a_group_imported_from_a_file_completes(north: Installation, tmp_path: Path) -> None:
    prepared(north, tmp_path, 6)
    artifact = tmp_path / "fw.bin"
    artifact.write_bytes(b"firmware")
    added = json.loads(north.do("firmware", "add", str(artifact), "--url", URL, "--version", "2.1", "-o", "json"))
    assert added["checksum_sha256"] == hashlib.sha256(b"firmware").hexdigest()
    assert added["file_size_bytes"] == len(b"firmware")
    fleet = ["fleet", "--tenant", TENANT, "--devices", "6", "--no-download", "--step-delay", "0"]
    async with rollwave_running(*fleet, log=tmp_path / "fleet.log", env=north.env) as running:
        await eventually(lambda: "fleet_connected" in running.output())
        made = north.do("campaign", "create", "spring", "--firmware", "2.1", "--group", "all", "--start")
        assert made.splitlines() == [
            "campaign 1: 6 devices, RUNNING",
            f"firmware 2, version 2.1, for any device type, at {URL}",
        ]
        watched = north.do("campaign", "watch", "1", "--timeout", "60").splitlines()
    assert watched[-1].startswith("COMPLETED  6 SUCCESS  (Completed: ")
    assert any(line.endswith("created for 6 devices") for line in watched)
    assert "COMPLETED" in north.do("campaign", "list", "--status", "COMPLETED")
    assert "2.1" in north.do("campaign", "show", "1")
    listed = json.loads(north.do("campaign", "devices", "1", "-o", "json", "--limit", "2"))
    assert (len(listed["devices"]), listed["total"]) == (2, 6)
    assert "2 of 6; --limit shows more" in north.run("campaign", "devices", "1", "--limit", "2").stderr
    explained = north.do("campaign", "explain", "1", "dev-1")
    assert explained.splitlines()[0] == "dev-1 is SUCCESS, and is not sent to now"
    assert "it runs the firmware" in explained
    assert north.run("campaign", "waiting", "1").stderr.splitlines() == ["No device is PENDING."]
    assert psql(north.database, "SELECT DISTINCT attributes FROM devices") == '{"rev": "B"}'


async def test_devices_are_listed_by_a_selector_over_their_labels(north: Installation, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_text("device_id,device_type,site,version\na,pump,north,1.10\nb,pump,north,1.9\nc,valve,south,2.0\n")
    north.do("device-group", "import", "all", str(table))
    found = north.do("device", "list", "--select", "site == north; version > 1.9")
    assert [line.split()[:2] for line in found.splitlines()] == [["DEVICE", "TYPE"], ["a", "pump"]]
    rows = json.loads(north.do("device", "list", "--device-type", "valve", "-o", "json"))["devices"]
    assert [row["device_id"] for row in rows] == ["c"]
    wrong = north.run("device", "list", "--select", "site == north and")
    assert wrong.returncode == 1
    assert "line 1, column 18: the end is not expected here; expected: '(', a key, has, not" in wrong.stderr


async def test_waiting_and_explain_say_which_gate_devices_wait_for_and_until_when(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with installed(database, broker.url, tmp_path / "serve.log", tick=60) as north:
        prepared(north, tmp_path, 6)
        north.do("campaign", "create", "spring", "--firmware", "2.0", "--group", "all", "--rate", "2")
        heading, waiting = north.do("campaign", "waiting", "1").splitlines()
        assert heading.split() == ["WAIT", "FOR", "DEVICES", "UNTIL", "WHY"]
        assert re.fullmatch(r"status +6 +the campaign has not been started *", waiting)
        north.do("campaign", "start", "1")
        await eventually(lambda: psql(database, "SELECT sent FROM ota_campaigns") == "2", what="two devices sent to")
        _, waiting = north.do("campaign", "waiting", "1").splitlines()
        at = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
        used_up = r"at most 2 devices in 60 s; the next at \d\d:\d\d:\d\d UTC"
        assert re.fullmatch(rf"pace +4 +{at} +{used_up} *", waiting)
        verdict, heading, *checks = north.do("campaign", "explain", "1", "dev-6").splitlines()
        assert re.fullmatch(rf"dev-6 is PENDING, and may be sent to at {at} at the earliest", verdict)
        assert heading.split() == ["GATE", "STATE", "UNTIL", "WHY"]
        gates = ["status", "targeting", "listener", "halted", "freeze", "wave", "in_flight", "pace"]
        assert [(check.split()[0], check.split()[1]) for check in checks if not check.startswith("20")] == [
            (gate, "closed" if gate == "pace" else "open") for gate in gates
        ]
        assert re.fullmatch(rf"pace +closed +{at} +{used_up}; 3 devices go before it *", checks[7])


async def test_create_waits_for_targeting_of_a_large_group_up_to_its_timeout(
    north: Installation, tmp_path: Path
) -> None:
    prepared(north, tmp_path, 12_000)
    words = ["campaign", "create", "spring", "--firmware", "2.0", "--group", "all", "--start"]
    so_far = "targeting 10,000 of 12,000 devices"
    chosen = f"firmware 1, version 2.0, for any device type, at {URL}\n"
    expected = f"12000 devices, RUNNING, 10,000 of them targeted so far\n{chosen}"
    async with targeting_held_after_first_batch(north.database):
        gave_up = north.run(*words, "--timeout", "8")
        assert (gave_up.returncode, gave_up.stdout) == (4, f"campaign 1: {expected}")
        assert gave_up.stderr.splitlines()[-1] == f"campaign 1: {so_far}; no worker seems to run"
        targeted = "Running; 10,000 of 12,000 devices are targeted so far"
        assert targeted in north.do("campaign", "show", "1")
        watched = north.run("campaign", "watch", "1", "--timeout", "0").stdout
        assert f"RUNNING  10,000 PENDING  ({targeted})" in watched
    at_once = north.run(*words)
    assert (at_once.returncode, at_once.stdout, at_once.stderr) == (0, f"campaign 2: {expected}", "")
    waited = north.run(*words, "--wait")
    assert waited.stdout == f"campaign 3: 12000 devices, RUNNING\n{chosen}"
    assert waited.stderr.splitlines()[-1] == "campaign 3: 12,000 devices targeted"
    code, seen = run_on_a_terminal(north, *words)
    assert code == 0
    assert "━" in seen
    assert "campaign 4: 12,000 devices targeted" in seen


async def test_abort_asks_for_confirmation_and_watch_exits_with_a_code_for_aborted(
    north: Installation, tmp_path: Path
) -> None:
    prepared(north, tmp_path, 3)
    north.do("campaign", "create", "spring", "--firmware", "2.0", "--group", "all")
    assert north.run("campaign", "watch", "1", "--timeout", "0").returncode == 4
    refused = north.run("campaign", "abort", "1")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert on_a_terminal(north, "campaign", "abort", "1", answer="n\n") == 1
    assert "CREATED" in north.do("campaign", "show", "1")
    assert on_a_terminal(north, "campaign", "abort", "1", answer="y\n") == 0
    assert north.do("campaign", "abort", "1", "--yes") == "Campaign 1 is ABORTED.\n"
    watched = north.run("campaign", "watch", "1")
    assert watched.returncode == 3
    assert watched.stdout.splitlines()[-1].startswith("ABORTED  3 SKIPPED")
    again = north.run("campaign", "start", "1")
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")


async def test_watch_continues_after_an_outage_of_the_api(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    port = free_port()
    async with AsyncExitStack() as watching:
        async with installed(database, broker.url, tmp_path / "serve.log", port=port) as north:
            prepared(north, tmp_path, 1)
            north.do("campaign", "create", "spring", "--firmware", "2.0", "--group", "all")
            watch = await watching.enter_async_context(
                rollwave_running("campaign", "watch", "1", log=tmp_path / "watch.log", env=north.env)
            )
            await eventually(lambda: "CREATED" in watch.output())
        await eventually(lambda: "retrying" in watch.output())
        async with installed(database, broker.url, tmp_path / "serve.log", port=port) as north:
            north.do("campaign", "abort", "1", "--yes")
            assert await watch.process.wait() == 3


async def test_control_characters_in_a_devices_error_are_not_printed_raw(north: Installation, tmp_path: Path) -> None:
    prepared(north, tmp_path, 1)
    north.do("campaign", "create", "\x1b]0;title\x07", "--firmware", "2.0", "--group", "all")
    psql(north.database, r"UPDATE ota_device_status SET error_message = E'\x1b[2J[bold]<b>\u202e'")
    for words in (["devices", "1"], ["show", "1"], ["list"], ["devices", "1", "-o", "json"]):
        assert "\x1b" not in north.do("campaign", *words)
    assert r"\x1b[2J[bold]<b>\u202e" in north.do("campaign", "devices", "1")


async def test_a_group_file_with_mistakes_changes_nothing(north: Installation, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_text("device_id\ndev-1\ndev#2\ndev-1\n")
    refused = north.run("device-group", "import", "all", str(table))
    assert (refused.returncode, refused.stdout) == (1, "")
    lines = refused.stderr.splitlines()
    assert [line.startswith(f"{table}:{number}: ") for line, number in zip(lines, (3, 4), strict=False)] == [True] * 2
    assert lines[2] == f"error: 2 mistakes in {table}; the group was not changed"
    assert psql(north.database, "SELECT count(*) FROM devices") == "0"
    assert north.run("device-group", "import", "all", str(tmp_path / "none.csv")).returncode == 1


async def test_create_accepts_a_firmware_version_or_id_and_prints_the_one_chosen(north: Installation) -> None:
    north.do("device-group", "put", "all", "dev-1")
    for version, kind in (("4.2.0", None), ("4.2.0", "gateway"), ("2", None), ("20260115", None)):
        north.do("firmware", "add", URL, "--version", version, *(["--device-type", kind] if kind else []))

    def create(firmware: str, *more: str) -> subprocess.CompletedProcess[str]:
        return north.run("campaign", "create", "spring", "--firmware", firmware, "--group", "all", *more)

    for firmware, chosen in (("2", 3), ("20260115", 4), ("id:1", 1), ("id:3", 3)):
        made = json.loads(create(firmware, "-o", "json").stdout)
        assert (made["firmware_version_id"], made["firmware_url"]) == (chosen, URL)
    assert create("2").stdout.splitlines()[1] == f"firmware 3, version 2, for any device type, at {URL}"
    refused = {
        "4.2.0": (
            "firmware 1, version 4.2.0, for any device type",
            "firmware 2, version 4.2.0, for device type gateway",
        ),
        "4": (f"firmware 4, version 20260115, for any device type, at {URL}", "--firmware id:4"),
        "9.9": ("no firmware has the version 9.9", "rollwave firmware list"),
        "id:99": ("no firmware 99",),
        "id:4.2.0": ("'4.2.0' is not an id", "--firmware id:2"),
        "4.2.0 ": ("no firmware has the version 4.2.0 ",),
    }
    for firmware, expected in refused.items():
        failed = create(firmware)
        assert (failed.returncode, failed.stdout) == (1, ""), firmware
        assert [each in failed.stderr for each in expected] == [True] * len(expected), failed.stderr
    assert "--firmware id:2 or --firmware id:1" in create("4.2.0").stderr
    assert json.loads(north.do("campaign", "list", "-o", "json"))["total"] == 5


async def test_registering_firmware_again_prints_the_existing_one(north: Installation) -> None:
    words = ["firmware", "add", URL, "--version", "2.0", "--size", "8"]
    assert north.do(*words) == f"firmware 1: 2.0 at {URL}\n"
    assert north.do(*words) == f"firmware 1: 2.0 at {URL} (registered before)\n"
    assert [json.loads(north.do(*words[:4], each, "-o", "json"))["new"] for each in ("3.0", "3.0")] == [True, False]
    other = north.run(*words[:-1], "9")
    assert (other.returncode, other.stdout) == (1, "")
    assert "another file_size_bytes" in other.stderr


async def test_ambiguous_arguments_are_refused(north: Installation, tmp_path: Path) -> None:
    table = tmp_path / "devices.csv"
    table.write_text("device_id\ndev-1\n")
    given = north.run("device-group", "put", "all", str(table))
    assert (given.returncode, f"rollwave device-group import all {table}" in given.stderr) == (1, True)
    for group in ("a/b", "../firmware", "a#b", ""):
        assert north.run("device-group", "show", group).returncode == 2
    legal = north.run("device-group", "show", "a?limit=1")
    assert (legal.returncode, "a?limit=1" in legal.stderr) == (1, True), "an unknown group must not mean all groups"
    key = north.env["ROLLWAVE_API_KEY"]
    whole = north.run("apikey", "revoke", key, "--tenant", TENANT)
    assert whole.returncode == 1
    assert key not in whole.stderr
    assert north.run("quarantine", "list", "--tenant", "").returncode == 1


async def test_refusals_of_the_api_are_explained(north: Installation) -> None:
    viewer = rollwave("apikey", "create", "--tenant", TENANT, "--role", "viewer", env=north.env).stdout.strip()
    for words, key, expected in (
        (["firmware", "list"], "rollwave.north.0123456789abcdef.nothing", "ROLLWAVE_API_KEY"),
        (["firmware", "add", URL, "--version", "1"], viewer, "role"),
        (["firmware", "add", "file:///etc/passwd", "--version", "1"], None, "file_url"),
        (["campaign", "show", "99"], None, "99"),
        (["campaign", "create", "x", "--firmware", "9.9", "--group", "all"], None, "9.9"),
        (["device-group", "put", "all", "dev/1"], None, "device_ids"),
    ):
        refused = north.run(*words, *(["--api-key", key] if key else []))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("error: ")
        assert expected in refused.stderr


def on_a_terminal(north: Installation, *arguments: str, answer: str) -> int:
    """Run a command whose standard input is a terminal, where ``answer`` is typed. Returns its exit code."""
    keyboard, terminal = pty.openpty()
    os.write(keyboard, answer.encode())
    try:
        return subprocess.run(
            [program(), *arguments],
            env=environment(**north.env),
            stdin=terminal,
            capture_output=True,
            timeout=30,
            check=False,
        ).returncode
    finally:
        os.close(keyboard)
        os.close(terminal)
