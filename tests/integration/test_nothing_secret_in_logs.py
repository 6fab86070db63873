"""Passwords, keys and long messages of a device are in no log and no error message, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate
from tests.engine import TENANT, connect, devices, insert_campaign, wait_until_ended, worker
from tests.support import eventually, free_port, rollwave

SECRET = "hunter2"


DATABASES = (
    "postgresql://rollwave:{secret}@127.0.0.1:{port}/fleet",
    "postgresql://rollwave:{secret}@127.0.0.1:not-a-port/fleet",
    "postgresql://rollwave:{secret}@[::1/fleet",
    "postgresql://rollwave:{secret}/fleet",
    "rollwave:{secret}@127.0.0.1/fleet",
    "postgresql://rollwave@127.0.0.1:{port}/fleet?password={secret}&sslmode=nonsense",
)
BROKERS = ("mqtt://rollwave:{secret}@127.0.0.1:{port}", "mqtt://rollwave:{secret}@h:no", "http://rollwave:{secret}@h")


async def test_no_error_message_shows_a_url() -> None:
    for url in DATABASES:
        with pytest.raises((DatabaseUnavailable, ConfigurationError)) as refused:
            async with create_pool(url.format(secret=SECRET, port=free_port())):
                pass
        assert SECRET not in f"{refused.value} {refused.value.hint}", url
        with pytest.raises((DatabaseUnavailable, ConfigurationError)) as refused:
            await migrate(url.format(secret=SECRET, port=free_port()))
        assert SECRET not in f"{refused.value} {refused.value.hint}", url
    for url in BROKERS:
        with pytest.raises((BrokerUnavailable, ConfigurationError)) as away:
            async with Session.connect(Broker.from_url(url.format(secret=SECRET, port=free_port()))):
                pass
        assert SECRET not in f"{away.value} {away.value.hint}", url


def test_a_worker_that_cannot_start_logs_no_password() -> None:
    env = {"DATABASE_URL": DATABASES[3].format(secret=SECRET), "MQTT_PASSWORD": SECRET, "LOG_LEVEL": "DEBUG"}
    done = rollwave("worker", env=env)
    assert (done.returncode, SECRET in done.stdout + done.stderr) == (1, False), done


async def test_a_worker_logs_neither_passwords_nor_what_devices_write(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    login = broker.url.replace("mqtt://", f"mqtt://rollwave:{SECRET}@")
    async with (
        connect(database) as host,
        devices(broker.url) as fleet,
        worker(database, login, tmp_path / "log", LOG_LEVEL="DEBUG", MQTT_PASSWORD=SECRET) as running,
    ):
        campaign = await insert_campaign(host, 2, abort_threshold=0.0)
        await eventually(lambda: len(fleet.commands_of(campaign)) == 2, what="sent")
        fleet.send(status_topic(TENANT, "dev-1"), b"endless " * 5000)
        fleet.report("dev-2", campaign, "SUCCESS")
        fleet.send(status_topic(TENANT, "dev-1"), encode_report(campaign, "FAILED", error="endless " * 7500))
        await wait_until_ended(host, campaign, "ABORTED")
        broker.stop()
        await eventually(lambda: "ota_status_listener_disconnected" in running.output(), what="and an outage")
        output = running.output()
    assert SECRET not in output
    assert output.count("endless") < 10
