"""Settings that are wrong, or look wrong: what commands print, and whether they start."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.engine import events, worker
from tests.support import eventually, free_port, rollwave, rollwave_running

CA = "/nowhere/ca.pem"


async def test_a_worker_warns_about_a_ca_certificate_with_a_plaintext_url(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    port = free_port()
    url = broker.url.replace("mqtt://", "tcp://")
    async with worker(database, url, tmp_path / "log", "--port", str(port), MQTT_CA_CERT=CA) as running:
        [warned] = events(running, "ota_setting_ignored")
        assert (warned["level"], "mqtts://" in warned["hint"], "exception" in warned) == ("warning", True, False)
        page = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
    for name in ("rollwave_devices_dispatched_total counter", "process_cpu_seconds_total counter", "python_info gauge"):
        assert page.count(f"# TYPE {name}") == 1, name


async def test_devices_and_doctor_warn_about_a_ca_certificate_with_a_plaintext_url(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url, "MQTT_CA_CERT": CA}
    fleet = rollwave("fleet", "--tenant", "north", "--devices", "1", "--for", "0.1", "-o", "json", env=settings)
    assert fleet.returncode == 0, fleet.stderr
    assert "MQTT_CA_CERT is not used" in fleet.stderr
    run = ("device", "run", "--tenant", "north", "--device", "dev-1", "--state", str(tmp_path / "state"))
    async with rollwave_running(*run, log=tmp_path / "log", env=settings) as device:
        await eventually(lambda: "MQTT_CA_CERT is not used" in device.output(), what="warned")
        assert device.process.returncode is None
    findings = json.loads(rollwave("doctor", "-o", "json", env=settings).stdout)["findings"]
    [warning] = [each for each in findings if "MQTT_CA_CERT" in each["text"]]
    assert warning["state"] == "warning"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"MQTT_BROKER_URL": "mqtts://h", "MQTT_CA_CERT": CA}, "Name a PEM file"),
        ({"MQTT_BROKER_URL": "wss://h"}, "Use mqtt://host:1883"),
        ({"OTA_TICK_INTERVAL": "soon"}, "Correct OTA_TICK_INTERVAL"),
        ({"ROLLWAVE_DATABASE_DIRECT_URL": "postgresql://u:hunter2/fleet"}, "special characters of a password as %XX"),
    ],
    ids=["a CA file that is missing", "websockets", "a number that is none", "a direct URL that is none"],
)
async def test_a_worker_with_settings_that_cannot_work_does_not_start(
    database: str, settings: dict[str, str], hint: str
) -> None:
    done = await asyncio.to_thread(rollwave, "worker", env={"DATABASE_URL": database} | settings)
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "command", [["worker"], ["serve", "--port", "0"], ["apikey", "create", "--tenant", "north", "--role", "viewer"]]
)
def test_the_api_and_worker_name_a_missing_migration(empty_database: str, command: list[str]) -> None:
    done = rollwave(*command, env={"DATABASE_URL": empty_database})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: the database has no schema of Rollwave",
        "hint: Run `rollwave migrate`.",
    ]


def _get(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        text: str = answer.read().decode()
    return text
