"""Contexts, completion, settings files, reports and files of campaigns, as an operator uses them."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from rollwave.embedded.broker import EmbeddedBroker
from tests.installation import TENANT, Installation, installed
from tests.support import eventually, psql, rollwave

CAMPAIGN = """\
name: spring
firmware: "2.0"
group: all
policy: ./policy.yaml
"""


@pytest.fixture
async def north(database: str, broker: EmbeddedBroker, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(database, broker.url, tmp_path / "serve.log", timeout=120) as installation:
        installation.do("device-group", "put", "all", "dev-1", "dev-2")
        installation.do("firmware", "add", "http://h/f", "--version", "2.0")
        yield installation


async def test_contexts_choose_the_server_and_never_show_a_key(north: Installation, tmp_path: Path) -> None:
    key, url = north.env["ROLLWAVE_API_KEY"], north.env["ROLLWAVE_API_URL"]
    (tmp_path / "key").write_text(f"{key}\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    seen = []

    def run(*words: str, **more: str) -> tuple[int, str, str]:
        done = rollwave(*words, env=env | more)
        seen.append(done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    assert run("context", "add", "here", "--url", url, "--key-file", str(tmp_path / "key"))[0] == 0
    assert run("context", "add", "gone", "--url", "http://127.0.0.1:9", "--key-file", str(tmp_path / "key"))[0] == 0
    file = tmp_path / "config" / "rollwave" / "contexts.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("context", "list", "-o", "name")[1] == "here\ngone\n"
    assert json.loads(run("context", "show", "-o", "json")[1])["tenant"] == TENANT
    assert run("device-group", "list", "-o", "name")[:2] == (0, "all\n")
    assert run("device-group", "list", "--context", "gone")[0] == 1
    code, _, error = run("device-group", "list", "--context", "nowhere")
    assert (code, "Known contexts: here, gone." in error) == (1, True)
    other = rollwave("apikey", "create", "--tenant", "south", "--role", "viewer", env=north.env).stdout.strip()
    assert other
    code, names, warning = run("device-group", "list", "-o", "name", ROLLWAVE_API_KEY=other)
    assert (code, names) == (0, ""), "the key of the environment has gone to the current context's URL"
    assert warning.startswith("warning: ROLLWAVE_API_KEY is sent to")
    assert run("device-group", "list", "--context", "here", "-o", "name", ROLLWAVE_API_KEY=other)[1:] == ("all\n", "")
    assert run("context", "use", "gone")[0] == 0
    assert run("device-group", "list")[0] == 1
    assert run("context", "remove", "gone")[0] == 0
    assert "ROLLWAVE_API_KEY is not set" in run("device-group", "list")[2]
    file.chmod(0o644)
    assert "chmod 600" in run("context", "list")[2]
    assert not [text for text in seen if key in text or key.rpartition(".")[2] in text]


def completed(line: str, env: dict[str, str]) -> list[str]:
    """The words that bash is given for the last word of a line."""
    words = line.split(" ")
    asked = {"_ROLLWAVE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = rollwave(env=env | asked)
    assert done.stderr == ""
    return done.stdout.split()


async def test_names_that_the_server_knows_are_completed(north: Installation) -> None:
    north.do("campaign", "create", "spring", "--firmware", "2.0", "--group", "all")
    for line, names in (
        ("rollwave campaign show ", ["1"]),
        ("rollwave campaign create x --group a", ["all"]),
        ("rollwave campaign create x --firmware ", ["2.0"]),
        ("rollwave device show dev", ["dev-1", "dev-2"]),
        ("rollwave campaign explain 1 dev-2", ["dev-2"]),
    ):
        # On a busy machine, the server may need more than the second that it has.
        await eventually(partial(_completes, line, names, north.env), timeout=60, what=line)


def _completes(line: str, names: list[str], env: dict[str, str]) -> bool:
    return completed(line, env) == names


def test_completion_is_silent_and_does_not_wait_for_a_server_that_does_not_answer() -> None:
    assert completed("rollwave campaign show ", {}) == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"ROLLWAVE_API_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "ROLLWAVE_API_KEY": "key"}
        began = time.monotonic()
        assert completed("rollwave campaign show ", env) == []
        assert time.monotonic() - began < 15, "a second, on a machine that is not busy"


async def test_init_writes_a_file_that_can_be_loaded_and_checks_it(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "rollwave.env"
    words = ["init", str(file), "--database-url", database, "--broker-url", broker.url]
    done = rollwave(*words, env={"OTA_TICK_INTERVAL": "5"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert "\nOTA_TICK_INTERVAL=5\n" in text
    assert "\n#OTA_MAX_ATTEMPTS=3\n" in text
    loaded = in_a_shell(f"set -a; . {file}; set +a; printenv DATABASE_URL MQTT_BROKER_URL")
    assert loaded == [database, broker.url]
    again = rollwave(*words)
    assert (again.returncode, file.read_text()) == (1, text)
    assert "--force" in again.stderr
    assert rollwave("init", str(file), "--force", "--broker-url", "mqtt://127.0.0.1:9").returncode == 1


def in_a_shell(script: str) -> list[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()


async def test_a_report_is_one_file_without_a_script_in_which_texts_are_escaped(
    north: Installation, tmp_path: Path
) -> None:
    north.do("campaign", "create", "<script>alert(1)</script>\x1b[2J", "--firmware", "2.0", "--group", "all")
    psql(north.database, "UPDATE ota_device_status SET status = 'FAILED', error_message = '<img src=x>'")
    file = tmp_path / "report.html"
    done = north.run("campaign", "report", "1", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"Wrote {file}.\n")
    page = file.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<script|<img|<link|\x1b|javascript:|url\((?!#)| style=", page)
    assert not [url for url in re.findall(r"(?:src|href)=\"([^\"]*)", page) if url]
    assert north.run("campaign", "report", "1", "--output", str(file)).returncode == 1
    assert north.run("campaign", "report", "1", "--output", str(file), "--force").returncode == 0
    assert north.do("campaign", "report", "1", "--output", "-").startswith("<!doctype html>")


async def test_a_campaign_is_created_from_a_file_which_options_override(north: Installation, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("pace: {per_minute: 60}\n")
    file = tmp_path / "campaign.yaml"
    file.write_text(CAMPAIGN)
    create = ["campaign", "create", "-f", str(file)]
    made = json.loads(north.do(*create, "-o", "json"))
    assert (made["name"], made["target_group_id"], made["total_devices"]) == ("spring", "all", 2)
    assert "per_minute: 60" in north.do("policy", "show", "1")
    north.do("device-group", "put", "bench", "dev-1")
    changed = yaml.safe_load(north.do(*create, "summer", "--group", "bench", "--rate", "3", "-o", "yaml"))
    assert (changed["name"], changed["total_devices"], changed["rollout_rate"]) == ("summer", 1, 3)
    for text, expected in (
        (CAMPAIGN.replace("group", "gruop"), "did you mean group?"),
        (CAMPAIGN.replace('"2.0"', "2.0"), 'Put it in quotes: firmware: "2.0"'),
        (f"{CAMPAIGN}rate: 3\n", "takes the place of every other rule"),
        ("name: spring\n", "no firmware and no group"),
        ("name: [", "campaign.yaml:"),
        ("spring", "does not describe a campaign"),
    ):
        file.write_text(text)
        refused = north.run(*create)
        assert (refused.returncode, refused.stdout) == (1, ""), text
        assert expected in refused.stderr
    assert north.run("campaign", "create", "x").returncode == 1
