"""`rollwave policy`: checking a file without a server, and a campaign's policy over the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.installation import Installation, installed
from tests.support import rollwave

POLICY = """\
waves:
- name: canary
  size: 5%
- name: rest
pace:
  per_minute: 600
"""


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log") as installation:
        yield installation


def test_a_valid_policy_is_accepted_with_warnings_and_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    done = rollwave("policy", "check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file} is valid\n", "")
    file = tmp_path / "policy.json"
    file.write_text('{"guardrails": []}')
    done = rollwave("policy", "check", str(file))
    assert done.returncode == 0
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["warning", "warning"]
    file = tmp_path / "night.yaml"
    file.write_text(
        "schedule:\n"
        "  time_zone: Europe/Zurich\n"
        "  start: 2040-01-01T12:00:00Z\n"
        '  windows: [{kind: allow, cron: "0 2 * * *", duration: 2h}]\n'
        "pace: {per_minute: 1}\n"
    )
    nights = ", ".join(f"2040-01-0{day} 02:00 to 04:00" for day in range(2, 7))
    assert rollwave("policy", "check", str(file)).stderr == f"next openings: {nights} (Europe/Zurich)\n"
    assert json.loads(rollwave("policy", "schema").stdout)["title"] == "Rollwave policy"


def test_each_problem_is_shown_in_its_line_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("waves:\n- {name: canary, sizze: 10}\n- {name: rest}\npace: {per_minute: 0}\n")
    done = rollwave("policy", "check", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{file}:2:18: waves[0].sizze: unknown key",
        "  2 | - {name: canary, sizze: 10}",
        "    |                  ^",
        "    did you mean size?",
        f"{file}:4:20: pace.per_minute: must be a whole number from 1 to 2,147,483,647",
        "  4 | pace: {per_minute: 0}",
        "    |                    ^",
        f"error: {file} has 2 problems",
        "hint: `rollwave policy schema` describes each key.",
    ]
    assert rollwave("policy", "check", str(tmp_path / "none.yaml")).stderr.startswith("error: ")


async def test_a_campaigns_policy_is_created_shown_edited_and_compared(north: Installation, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    (tmp_path / "devices.csv").write_text("device_id\ndev-1\n")
    north.do("device-group", "import", "all", str(tmp_path / "devices.csv"))
    north.do("firmware", "add", "http://files.example/fw.bin", "--version", "2.0")
    create = ["campaign", "create", "spring", "--firmware", "2.0", "--group", "all"]
    tried = north.run(*create, "--policy", str(file), "--dry-run")
    assert tried.stdout == POLICY
    assert tried.stderr.splitlines()[-6:] == [
        "  1. canary  1 devices  100.0 %",
        "  2. rest    0 devices    0.0 %",
        "Guardrails and windows judge 1 segment of devices.",
        "Up to 1 device is sent to before a guardrail acts.",
        tried.stderr.splitlines()[-2],
        "Nothing was created.",
    ]
    assert north.do("campaign", "list", "-o", "name") == "", "a dry run creates none"
    north.do(*create, "--policy", str(file))
    north.do("policy", "store", "night", str(file))
    assert north.do("policy", "show", "1") == north.do("policy", "show", "night") == POLICY
    assert "night" in north.do("policy", "list")
    assert "revision 1" in north.do("campaign", "show", "1")
    refused = rollwave(*create, "--policy", "night", "--rate", "5", env=north.env)
    assert refused.returncode == 1
    assert "--policy takes the place of every other rule" in refused.stderr

    edit = ["policy", "edit", "1", "--reason", "more", "--yes"]
    unchanged = rollwave(*edit, env=north.env | {"EDITOR": "true"})
    assert (unchanged.returncode, unchanged.stdout) == (0, "nothing was changed\n")
    edited = rollwave(*edit, env=north.env | {"EDITOR": "sed -i s/600/700/"})
    assert edited.stderr == ""
    assert edited.stdout.splitlines()[-3:] == [
        "-  per_minute: 600",
        "+  per_minute: 700",
        "campaign 1 follows revision 2 of its policy",
    ]
    invalid = rollwave(*edit, env=north.env | {"EDITOR": "sed -i s/pace/pase/"})
    assert invalid.returncode == 1
    assert "did you mean pace?" in invalid.stderr
    assert north.do("policy", "diff", "1").splitlines()[:2] == ["--- revision 1", "+++ revision 2"]
    assert north.do("policy", "diff", "1", "--revision", "2") == "revision 2 and revision 2 do not differ\n"
    assert north.do("policy", "show", "1", "--revision", "1") == POLICY
    hour = 2 if datetime.now(UTC).hour > 4 else 14  # an hour at which the window is closed now
    file.write_text(POLICY + f'schedule: {{windows: [{{kind: allow, cron: "0 {hour} * * *", duration: 2h}}]}}')
    assert (
        north.run("policy", "edit", "1", "--yes", "--file", str(file)).stderr.count(
            f" {hour:02}:00 to {hour + 2:02}:00"
        )
        == 5
    )
    north.do("policy", "delete", "night")
