"""An operator runs campaigns with psql, mosquitto_sub and mosquitto_pub alone, as the contract describes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import Mosquitto
from tests.support import Running, environment, eventually, psql, rollwave, rollwave_running

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

REGISTRY = """
INSERT INTO tenants (tenant_id) VALUES ('north');
INSERT INTO devices (tenant_id, device_id) SELECT 'north', 'pump-' || n FROM generate_series(1, 10) AS n;
INSERT INTO device_groups (tenant_id, group_id) VALUES ('north', 'pumps');
INSERT INTO device_group_members (tenant_id, group_id, device_id)
    SELECT tenant_id, 'pumps', device_id FROM devices;
"""


@dataclass
class Watch:
    """A ``mosquitto_sub`` on every command topic, and the lines it has printed: QoS, retain, topic and payload."""

    output: Path

    def commands(self) -> list[str]:
        return [line for line in self.output.read_text().splitlines() if line.startswith("command ")]


@pytest.fixture
def watch(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Watch]:
    path = tmp_path / "commands"
    with path.open("wb") as output:
        process = subprocess.Popen(
            [
                *f"stdbuf -oL mosquitto_sub -d -V mqttv5 -p {mosquitto.port} -q 2 -t tenant/+/device/+/ota -F".split(),
                "command %q %r %t %p",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Watch(path)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Engine:
    """The running engine, with what an operator at a prompt needs to use it."""

    url: str
    broker: Mosquitto
    watch: Watch
    worker: Running

    def sql(self, statement: str) -> str:
        return psql(self.url, statement)

    def report(self, device: str, body: str) -> None:
        subprocess.run(
            [
                *f"mosquitto_pub -p {self.broker.port} -q 1 -t tenant/north/device/{device}/ota/status -m".split(),
                body,
            ],
            env=environment(),
            check=True,
        )

    def row(self, device: str) -> str:
        return self.sql(
            "SELECT status, progress_pct, error_message, started_at IS NOT NULL, completed_at IS NOT NULL"
            f" FROM ota_device_status WHERE device_id = '{device}'"
        )

    def campaign(self) -> str:
        return self.sql("SELECT status, succeeded, failed, completed_at IS NOT NULL FROM ota_campaigns")

    def breakdown(self) -> str:
        return self.sql("SELECT status, count(*) FROM ota_device_status GROUP BY 1 ORDER BY 1")

    async def sent(self, number: int) -> list[str]:
        await eventually(lambda: len(self.watch.commands()) >= number, what=f"{number} commands")
        return self.watch.commands()


@pytest.fixture
async def engine(empty_database: str, mosquitto: Mosquitto, watch: Watch, tmp_path: Path) -> AsyncIterator[Engine]:
    """A migrated database and a running engine.

    A tick lasts a minute, so that only the first tick's devices are sent to.
    """
    settings = {"DATABASE_URL": empty_database, "MQTT_BROKER_URL": mosquitto.url, "OTA_TICK_INTERVAL": "60"}
    migrated = rollwave("migrate", env=settings)
    assert migrated.returncode == 0, migrated.stderr
    await eventually(lambda: "Subscribed" in watch.output.read_text(), what="mosquitto_sub subscribed")
    async with rollwave_running("worker", log=tmp_path / "worker", env=settings) as worker:
        await eventually(lambda: "ota_status_listener_subscribed" in worker.output(), what="listening")
        yield Engine(empty_database, mosquitto, watch, worker)


async def test_a_campaign_typed_into_psql_completes(engine: Engine) -> None:
    engine.sql(REGISTRY)
    engine.sql(f"""
        INSERT INTO firmware_versions
            (tenant_id, version, description, file_url, file_size_bytes, checksum_sha256, device_type, created_by)
        VALUES ('north', '2.1.0', 'typed in', 'https://files.invalid/fw.bin', 1024, '{SHA256}', 'pump', 'me');
        INSERT INTO ota_campaigns
            (tenant_id, name, firmware_version_id, target_group_id, rollout_strategy, rollout_rate,
             abort_threshold, status, total_devices, succeeded, failed, started_at, created_by)
        SELECT 'north', 'by hand', id, 'pumps', 'linear', 100, 0.1, 'RUNNING', 3, 0, 0, now(), 'me'
        FROM firmware_versions;
        INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, progress_pct)
        SELECT 'north', c.id, 'pump-' || n, 'PENDING', 0 FROM ota_campaigns c, generate_series(1, 3) AS n
    """)
    number = engine.sql("SELECT id FROM ota_campaigns")
    body = (
        f'{{"campaign_id": {number}, "firmware_url": "https://files.invalid/fw.bin", "version": "2.1.0", '
        f'"checksum": "{SHA256}", "action": "update", "size": 1024}}'
    )
    assert await engine.sent(3) == [f"command 1 0 tenant/north/device/pump-{n}/ota {body}" for n in (1, 2, 3)]
    await eventually(lambda: engine.breakdown() == "DOWNLOADING|3", what="marked as sent")
    assert engine.row("pump-3") == "DOWNLOADING|0||t|f"

    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "DOWNLOADING", "progress": 75}}')
    await eventually(lambda: engine.row("pump-1") == "DOWNLOADING|75||t|f")
    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "installing", "progress": 80}}')
    await eventually(lambda: engine.row("pump-1") == "INSTALLING|80||t|f")
    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "DOWNLOADING", "progress": 99}}')
    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "SUCCESS"}}')
    await eventually(lambda: engine.row("pump-1") == "SUCCESS|100||t|t")
    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "FAILED", "error": "too late"}}')
    engine.report("pump-2", f'{{"campaign_id": {number}, "status": "SUCCESS"}}')
    await eventually(lambda: engine.row("pump-2") == "SUCCESS|100||t|t")
    assert engine.row("pump-1") == "SUCCESS|100||t|t"
    assert engine.campaign() == "RUNNING|2|0|f"

    engine.report("pump-3", f'{{"campaign_id": {number}, "status": "Success"}}')
    await eventually(lambda: engine.campaign() == "COMPLETED|3|0|t")
    assert engine.breakdown() == "SUCCESS|3"
    assert len(engine.watch.commands()) == 3


async def test_a_campaign_typed_into_psql_aborts_on_failures_and_skips_the_remaining_devices(engine: Engine) -> None:
    engine.sql(REGISTRY)
    engine.sql("""
        INSERT INTO firmware_versions (tenant_id, version, file_url) VALUES ('north', '3.0', 'http://files.invalid/3');
        INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, rollout_rate, abort_threshold, status)
        SELECT 'north', 'bad', id, 4, 0.5, 'RUNNING' FROM firmware_versions;
        INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
        SELECT 'north', c.id, d.device_id
        FROM ota_campaigns c, devices d ORDER BY length(device_id), device_id
    """)
    number = engine.sql("SELECT id FROM ota_campaigns")
    body = json.dumps(
        {
            "campaign_id": int(number),
            "firmware_url": "http://files.invalid/3",
            "version": "3.0",
            "checksum": "",
            "action": "update",
        }
    )
    assert await engine.sent(4) == [f"command 1 0 tenant/north/device/pump-{n}/ota {body}" for n in (1, 2, 3, 4)]
    await eventually(lambda: engine.breakdown() == "DOWNLOADING|4\nPENDING|6", what="marked as sent")

    engine.report("pump-1", f'{{"campaign_id": {number}, "status": "SUCCESS"}}')
    engine.report("pump-2", f'{{"campaign_id": {number}, "status": "FAILED", "error": "no space left"}}')
    await eventually(lambda: engine.campaign() == "RUNNING|1|1|f", what="half of them failed, and no more than half")
    engine.report("pump-3", f'{{"campaign_id": {number}, "status": "FAILED", "error": "no space left"}}')
    await eventually(lambda: engine.campaign() == "ABORTED|1|2|t")
    assert engine.row("pump-2") == "FAILED|0|no space left|t|t"
    left = "DOWNLOADING|1\nFAILED|2\nSKIPPED|6\nSUCCESS|1"
    await eventually(lambda: engine.breakdown() == left, what="the rest are spared")

    engine.report("pump-4", f'{{"campaign_id": {number}, "status": "SUCCESS"}}')
    engine.report("pump-5", f'{{"campaign_id": {number}, "status": "SUCCESS"}}')
    await eventually(lambda: engine.campaign() == "ABORTED|2|2|t", what="devices in progress finish")
    assert engine.breakdown() == "FAILED|2\nSKIPPED|6\nSUCCESS|2"
    assert len(engine.watch.commands()) == 4
    abort = next(json.loads(line) for line in engine.worker.output().splitlines() if "auto_abort" in line)
    assert {key: abort[key] for key in ("campaign_id", "tenant_id", "failed", "succeeded", "threshold")} == {
        "campaign_id": int(number),
        "tenant_id": "north",
        "failed": 2,
        "succeeded": 1,
        "threshold": 0.5,
    }
