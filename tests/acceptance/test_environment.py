"""Commands in an environment with empty and unreadable variables. Each stops only for variables that it uses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.settings import Settings
from tests.engine import events, worker
from tests.support import eventually, free_port, rollwave

VARIABLES = [field.alias or name for name, field in Settings.model_fields.items()]
UNREADABLE = {
    "OTA_TICK_INTERVAL": "soon",
    "OTA_MAX_ATTEMPTS": "many",
    "ROLLWAVE_LISTENER_SLOTS": "none",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "pretty",
}


async def test_a_worker_treats_empty_variables_as_unset(database: str, broker: EmbeddedBroker, tmp_path: Path) -> None:
    empty = dict.fromkeys(VARIABLES, "") | {"ROLLWAVE_API_URL": "http://[", "LOG_LEVEL": "loud", "LOG_FORMAT": " "}
    for name in ("DATABASE_URL", "MQTT_BROKER_URL"):
        del empty[name]
    async with worker(database, broker.url, tmp_path / "log", **empty) as running:
        await eventually(lambda: events(running, "ota_status_listener_subscribed"), what="it listens")
        [ignored] = events(running, "ota_setting_ignored")
        assert "LOG_LEVEL" in ignored["error"]


def test_commands_ignore_invalid_settings_that_they_do_not_use(database: str, broker: EmbeddedBroker) -> None:
    env = UNREADABLE | {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url}
    assert rollwave("migrate", env=env).stdout.startswith("up to date")
    made = rollwave("apikey", "create", "--tenant", "t", "--role", "viewer", env=env)
    assert (made.returncode, made.stderr) == (0, "")
    run = rollwave("fleet", "--tenant", "t", "--devices", "1", "--for", "0.2", "-o", "json", env=env)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)
    env |= {"ROLLWAVE_API_KEY": made.stdout.strip(), "ROLLWAVE_API_URL": f"http://127.0.0.1:{free_port()}"}
    assert "cannot be reached" in rollwave("campaign", "list", env=env).stderr


@pytest.mark.parametrize("command", ["worker", "serve"])
def test_a_worker_with_an_invalid_setting_does_not_start(command: str, database: str, broker: EmbeddedBroker) -> None:
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url, "OTA_MAX_ATTEMPTS": "many"}
    finished = rollwave(command, env=env)
    assert finished.returncode == 1
    assert "error: OTA_MAX_ATTEMPTS should be a valid integer" in finished.stderr
    assert "many" not in finished.stderr


async def test_doctor_reports_every_invalid_setting_and_continues_its_checks(
    database: str, broker: EmbeddedBroker
) -> None:
    env = UNREADABLE | {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url}
    finished = await asyncio.to_thread(rollwave, "doctor", "-o", "json", env=env)
    found = json.loads(finished.stdout)["findings"]
    settings = {each["text"].split()[0]: each["state"] for each in found if each["check"] == "settings"}
    assert settings == {name: "warning" if name.startswith("LOG_") else "problem" for name in UNREADABLE}, (
        finished.stdout
    )
    states = {each["check"]: each["state"] for each in found}
    assert (states["schema"], states["broker"], states["engine's commands"]) == ("ok", "ok", "ok")
    assert "ROLLWAVE_LISTENER_SLOTS" in next(each["text"] for each in found if each["check"] == "listeners")
