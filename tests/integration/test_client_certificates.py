"""Client certificates: the engine, a device and the doctor connect to a broker that requires them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable, ConfigurationError
from rollwave.mqtt.broker import Broker, Protocol
from rollwave.mqtt.client import Session
from tests.artifact_server import ArtifactServer
from tests.engine import connect, insert_campaign, wait_until_ended, worker
from tests.shipped import DEVICES, ENGINE, ClientCertificate, ShippedMosquitto, client_certificate, password
from tests.support import eventually, rollwave, rollwave_running

CONTENT = b"firmware" * 1000
URL = "mqtts://localhost:8883"


@pytest.fixture
def closed_mosquitto(tmp_path: Path) -> Iterator[ShippedMosquitto]:
    """The configuration in ``deploy/`` with certificates instead of passwords, as its README describes."""
    with ShippedMosquitto(tmp_path, certificates=True) as broker:
        yield broker


def settings(broker: ShippedMosquitto, shown: ClientCertificate) -> dict[str, str]:
    return {"MQTT_BROKER_URL": broker.url, "MQTT_CA_CERT": str(broker.ca_cert), **shown.settings}


async def test_engine_and_device_log_in_with_their_certificates(
    database: str, closed_mosquitto: ShippedMosquitto, tmp_path: Path
) -> None:
    engine, device = (client_certificate(tmp_path, user) for user in (ENGINE, DEVICES[0]))
    arguments = ["device", "run", "--tenant", "north", "--device", "dev-1", "--state", str(tmp_path / "state")]
    with ArtifactServer() as server:
        url, checksum = server.put(CONTENT)
        async with (
            connect(database) as host,
            rollwave_running(*arguments, log=tmp_path / "device", env=settings(closed_mosquitto, device)) as running,
        ):
            await eventually(lambda: "device_connected" in running.output(), what="connected")
            campaign = await insert_campaign(host, 1)
            await host.execute("UPDATE firmware_versions SET file_url = $1, checksum_sha256 = $2", url, checksum)
            env = {
                name: value for name, value in settings(closed_mosquitto, engine).items() if name != "MQTT_BROKER_URL"
            }
            async with worker(database, closed_mosquitto.url, tmp_path / "worker", **env):
                await wait_until_ended(host, campaign)
    assert len(server.requests) == 1


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_broker_refuses_connections_without_a_certificate(
    closed_mosquitto: ShippedMosquitto, protocol: Protocol
) -> None:
    broker = Broker.from_url(closed_mosquitto.url, ca_cert=str(closed_mosquitto.ca_cert), protocol=protocol)
    with pytest.raises(BrokerUnavailable):
        async with Session.connect(broker) as session:
            await session.subscribe("anything")


def test_the_doctor_never_uses_the_engines_certificate_for_a_device(
    database: str, closed_mosquitto: ShippedMosquitto, tmp_path: Path
) -> None:
    env = {"DATABASE_URL": database, **settings(closed_mosquitto, client_certificate(tmp_path, ENGINE))}
    logins = [f"--device-{letter}={user}:{password(user)}" for letter, user in zip("ab", DEVICES[::2], strict=True)]
    output = rollwave("doctor", *logins, env=env).stdout
    assert "ok       broker: " in output
    assert "the engine shows a certificate too" in output
    assert "ok       strangers: the broker refuses clients without a user name or certificate" in output
    assert "warning  devices: not tested: the broker refuses" in output


def test_the_doctor_warns_about_certificates_with_a_plaintext_url(database: str, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": "mqtt://localhost:1"}
    output = rollwave("doctor", env=env | {"MQTT_CLIENT_CERT": str(certificate), "MQTT_CLIENT_KEY": str(key)}).stdout
    assert "problem  broker: MQTT_CLIENT_CERT is set but MQTT_BROKER_URL is plaintext" in output
    assert "unset MQTT_CLIENT_CERT and MQTT_CLIENT_KEY" in " ".join(output.split())


@pytest.fixture
def mosquitto_certificate(tmp_path: Path) -> ClientCertificate:
    ShippedMosquitto(tmp_path)  # It is made for its CA only, and not started.
    return client_certificate(tmp_path, DEVICES[0])


def test_unusable_certificate_files_are_named_with_their_setting(
    mosquitto_certificate: ClientCertificate, tmp_path: Path
) -> None:
    cert, key = str(mosquitto_certificate.cert), str(mosquitto_certificate.key)
    other = client_certificate(tmp_path, DEVICES[1])
    secret = client_certificate(tmp_path, DEVICES[1], passphrase="of the key")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    missing = str(tmp_path / "missing.pem")
    for client_cert, client_key, output in (
        (cert, None, "MQTT_CLIENT_CERT is set but MQTT_CLIENT_KEY is not"),
        (None, key, "MQTT_CLIENT_KEY is set but MQTT_CLIENT_CERT is not"),
        (missing, key, "MQTT_CLIENT_CERT names .*missing.pem, which is no file"),
        (cert, missing, "MQTT_CLIENT_KEY names .*missing.pem, which is no file"),
        (cert, str(other.key), "KEY_VALUES_MISMATCH|key values mismatch"),
        (str(garbage), key, "MQTT_CLIENT_CERT .*garbage.pem .*cannot be used"),
        (cert, str(garbage), "MQTT_CLIENT_KEY .*garbage.pem cannot be used"),
        (str(secret.cert), str(secret.key), "cannot be used"),
    ):
        with pytest.raises(ConfigurationError, match=output) as caught:
            Broker.from_url(URL, client_cert=client_cert, client_key=client_key)
        assert caught.value.hint
    assert Broker.from_url(URL, client_cert=cert, client_key=key).tls
    assert Broker.from_url(URL, client_cert="", client_key="").tls
