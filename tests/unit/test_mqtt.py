"""Topics, bodies and broker URLs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.ids import is_valid_id
from rollwave.errors import ConfigurationError, InvalidInput
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.payload import (
    Command,
    decode_command,
    encode_cancel,
    encode_command,
    encode_report,
    read_cancel,
)
from rollwave.mqtt.topics import parse_status_topic, status_topic


def test_a_command_is_encoded_byte_for_byte_as_in_the_contract() -> None:
    assert encode_command(7, "https://h/fw.bin", "2.1.0", None) == (
        b'{"campaign_id": 7, "firmware_url": "https://h/fw.bin", '
        b'"version": "2.1.0", "checksum": "", "action": "update"}'
    )


TEXTS = st.text().map(lambda text: text.encode("utf-8", "replace").decode())


@given(st.integers(1, 2**63 - 1), TEXTS, TEXTS, TEXTS, st.none() | st.integers(1, 2**63 - 1))
def test_a_device_parses_the_engines_command(
    campaign: int, url: str, version: str, checksum: str, size: int | None
) -> None:
    command = decode_command(encode_command(campaign, url, version, checksum, size))
    assert command == Command(campaign, url, version, checksum, "update", size)


def test_a_known_size_is_the_last_key() -> None:
    assert encode_command(7, "https://h/f", "1", None, 8).endswith(b'"action": "update", "size": 8}')


@pytest.mark.parametrize("size", [None, 0, -1, True, "8", 8.5, [], 1e400])
def test_an_unreadable_size_does_not_invalidate_the_command(size: object) -> None:
    body = json.loads(encode_command(7, "https://h/f", "1", None)) | {"size": size}
    assert decode_command(json.dumps(body).encode()) == Command(7, "https://h/f", "1", "")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("x" * 5000, "x" * 1024),
        ("ü" * 5000, "ü" * 512),
        ("x" + "ü" * 5000, "x" + "ü" * 511),
        ("\x00\x1b" * 600, " " * 600),
        ("\ud800", "?"),
        ("\x1b[31mbad\x85", " [31mbad "),
    ],
)
def test_a_reports_error_is_cut_to_a_kilobyte(error: str, kept: str) -> None:
    body = encode_report(7, "FAILED", error=error)
    assert json.loads(body)["error"] == kept
    assert len(body) < 1100


@pytest.mark.parametrize("payload", [b"", b"null", b"{}", b"[]", json.dumps({"campaign_id": "7"}).encode(), b"\xff"])
def test_invalid_commands_are_refused(payload: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_command(payload)


@pytest.mark.parametrize(
    "topic",
    [
        "tenant//device/d/ota/status",
        "tenant/t/device//ota/status",
        "tenant/t/device/d/x/ota/status",
        "TENANT/t/device/d/ota/status",
        "tenant/t/device/d/ota/status/",
        "tenant/t/device/d\n/ota/status",
        "tenant/t/device/d\uffff/ota/status",
        "tenant/ t/device/d/ota/status",
        f"tenant/t/device/{'d' * 129}/ota/status",
        "tenant/t/device/$d/ota/status",
        "tenant/t/device/d/ota",
        "",
    ],
)
def test_an_invalid_topic_is_refused(topic: str) -> None:
    assert parse_status_topic(topic) is None


@given(st.text())
def test_a_topic_is_parsed_to_the_ids_it_was_made_from(device: str) -> None:
    found = parse_status_topic(status_topic("north", device))
    assert found == (("north", device) if is_valid_id(device) else None)


@pytest.mark.parametrize("device", ["a.b", "a:b", "A-1_2.3", "d" * 128])
def test_valid_ids_are_accepted_in_topics(device: str) -> None:
    assert is_valid_id(device)


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://h", "ws://h", "mqtt://", "mqtt://h:x", "mqtt://h:99999", "h:x", ":1883", "//h", "mqtt:h", "://h"),
        *("mqtt://h h", "mqtt://me:hunter2@[::1", "me:hunter2@:1883", "mqtt://h:1883,other:hunter2"),
    ],
)
def test_an_invalid_broker_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Broker.from_url(url)
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


def test_websocket_urls_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="ws://"):
        Broker.from_url("ws://h:8080")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("h", "h", 1883, False),
        ("h:1884", "h", 1884, False),
        ("192.0.2.7:1883", "192.0.2.7", 1883, False),
        ("[::1]:1883", "::1", 1883, False),
        ("localhost", "localhost", 1883, False),
        ("me:word@h:1883", "h", 1883, False),
        ("h:8883", "h", 8883, True),
        ("tcp://h", "h", 1883, False),
        ("MQTT://h/", "h", 1883, False),
        ("tcp://h:1884", "h", 1884, False),
        ("mqtt://h:8883", "h", 8883, False),
        ("ssl://h", "h", 8883, True),
        ("tls://h:1883", "h", 1883, True),
        ("mqtts://h", "h", 8883, True),
    ],
)
def test_broker_urls_of_other_clients_are_accepted(url: str, host: str, port: int, tls: bool) -> None:
    broker = Broker.from_url(url)
    assert (broker.host, broker.port, broker.tls is not None) == (host, port, tls)


def test_a_ca_file_that_is_missing_is_an_error_and_never_plaintext(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")
    with pytest.raises(ConfigurationError, match="no file"):
        Broker.from_url("mqtts://h", ca_cert=missing)
    for url in ("ssl://h", "tls://h", "h:8883"):
        with pytest.raises(ConfigurationError, match="no file"):
            Broker.from_url(url, ca_cert=missing)


@pytest.mark.parametrize("url", ["mqtt://h", "tcp://h", "h:1883", "h"])
def test_a_ca_certificate_with_a_plaintext_url_gives_a_warning(url: str, tmp_path: Path) -> None:
    broker = Broker.from_url(url, ca_cert=str(tmp_path / "ca.pem"))
    assert broker.tls is None
    assert broker.warning is not None
    assert "MQTT_CA_CERT" in str(broker.warning)
    assert "mqtts://" in broker.warning.hint
    assert Broker.from_url(url).warning is None


def test_a_client_certificate_is_never_ignored(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="plaintext"):
        Broker.from_url("mqtt://h", client_cert=str(tmp_path / "cert.pem"), client_key=str(tmp_path / "key.pem"))


def test_credentials_are_never_shown() -> None:
    broker = Broker.from_url("mqtt://me:s%2Fecret@h")
    assert (broker.username, broker.password) == ("me", "s/ecret")
    assert "ecret" not in repr(broker)


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "a\x00b"])
def test_an_impossible_host_name_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="MQTT_BROKER_URL cannot be used"):
        Broker.from_url(f"mqtt://{host}:1883")


@pytest.mark.parametrize("host", ["[::1]", "bücher.example", "broker.example.", "with_underscore", "a" * 63])
def test_common_host_names_are_accepted(host: str) -> None:
    assert Broker.from_url(f"mqtt://{host}:1883").host == host.strip("[]")


@pytest.mark.parametrize(
    ("login", "named"),
    [
        ({"password": "hunter2", "protocol": "3.1.1"}, "MQTT_USERNAME"),
        ({"username": "a\x00b"}, "MQTT_USERNAME"),
        ({"username": "a\ud800"}, "MQTT_USERNAME"),
        ({"username": "a" * 65_536}, "MQTT_USERNAME"),
        ({"username": "a", "password": "b" * 65_536}, "MQTT_PASSWORD"),
    ],
)
def test_a_login_that_mqtt_cannot_encode_is_refused(login: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match="MQTT") as raised:
        Broker.from_url("mqtt://h", **login)
    assert named in raised.value.hint
    assert "hunter2" not in f"{raised.value} {raised.value.hint}"


def test_logins_that_mqtt_can_encode_are_accepted() -> None:
    for login in ({"password": "b"}, {"username": "a", "password": "\x00", "protocol": "3.1.1"}, {"username": "ä"}):
        assert Broker.from_url("mqtt://h", **cast("dict[str, Any]", login)).host == "h"


def test_the_body_of_a_cancel_command_has_two_keys() -> None:
    assert encode_cancel(7) == b'{"action": "cancel", "campaign_id": 7}'
    assert read_cancel(encode_cancel(7)) == 7


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"[]", b"\xff", b'{"action": "cancel"}', b'{"action": "cancel", "campaign_id": true}'),
        *(b'{"action": "none"}', b'{"action": "cancel", "campaign_id": "7"}', b"[" * 1000),
        encode_command(7, "http://host/fw", "2.0", None),
    ],
)
def test_other_messages_are_no_cancel_commands(payload: bytes) -> None:
    assert read_cancel(payload) is None


def test_the_seconds_within_which_a_device_begins_are_in_the_command() -> None:
    body = encode_command(7, "http://host/fw", "2.0", None, start_within=600)
    assert json.loads(body)["start_within"] == 600
    assert decode_command(body).start_within == 600
    for unreadable in (b"true", b"-1", b'"600"', b"1.5", b"null"):
        assert decode_command(body.replace(b"600", unreadable)).start_within == 0
