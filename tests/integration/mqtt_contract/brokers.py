"""The brokers of the suite, and a table of what each of them can do. Tests read the table; none of them skips."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.broker import Broker, Protocol
from tests.servers import Mosquitto

USER, PASSWORD = "engine", "correct"
"""The one login of a broker that is started with ``login``."""

SMALL_PACKETS_BYTES = 1_500
"""The packet limit of a Mosquitto that is started with ``small_packets``."""

Server: TypeAlias = Mosquitto | EmbeddedBroker


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a broker can do, over one version of the protocol. All of it is optional in MQTT, or of MQTT 5 alone."""

    carries_properties: bool
    """The attempt and the time to expiry travel with a message."""
    refuses_publishes: bool
    """It has access rules, and its PUBACK says that a message was refused (else the message is dropped unseen)."""
    announces_limit: bool
    """It says on connecting how large a packet may be, where it was given a limit."""
    remembers_over_restart: bool
    """Persistent sessions survive a restart of the broker."""
    withholds_retained: bool
    """A new subscription can ask not to be sent what was retained before it."""
    marks_retained: bool
    """A subscription can ask that messages published as retained say so."""
    names_takeover: bool
    """It says why it ends a session whose client id another client has taken."""
    bad_login: str
    """What the error message of a wrong password says."""
    bad_client_id: str
    """A client id that it refuses; empty: it takes every one."""
    takes_bytes: int
    """The largest payload that it takes, when started with ``small_packets`` where it can be."""


_MOSQUITTO_5 = Abilities(
    carries_properties=True,
    refuses_publishes=True,
    announces_limit=True,
    remembers_over_restart=True,
    withholds_retained=True,
    marks_retained=True,
    names_takeover=False,  # Mosquitto 2.0.11; later versions do
    bad_login="reason_code=135",
    bad_client_id="",
    takes_bytes=SMALL_PACKETS_BYTES,
)
_RUMQTTD_5 = Abilities(
    carries_properties=True,
    refuses_publishes=False,
    announces_limit=False,
    remembers_over_restart=False,
    withholds_retained=False,
    marks_retained=False,
    names_takeover=False,
    bad_login="Connection closed",
    bad_client_id="no/+#",
    takes_bytes=1_048_576,
)


def _over_mqtt_3_1_1(abilities: Abilities, *, bad_login: str) -> Abilities:
    return replace(
        abilities,
        carries_properties=False,
        refuses_publishes=False,
        announces_limit=False,
        withholds_retained=False,
        marks_retained=False,
        bad_login=bad_login,
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """A broker, over one version of the protocol."""

    name: Literal["mosquitto", "rumqttd"]
    protocol: Protocol
    abilities: Abilities

    def address(self, server: Server) -> Broker:
        """Where ``server`` listens for this version of the protocol."""
        old_listener = isinstance(server, EmbeddedBroker) and self.protocol == "3.1.1"
        url = server.url_v4 if isinstance(server, EmbeddedBroker) and old_listener else server.url
        return Broker.from_url(url, protocol=self.protocol)

    @contextmanager
    def start(self, folder: Path, *, login: bool = False, small_packets: bool = False) -> Iterator[RunningBroker]:
        """Run a broker of the test's own, which it may stop, freeze and start again.

        ``login``: nobody may connect but ``USER``. ``small_packets``: it takes payloads of ``takes_bytes``.
        """
        server = _mosquitto(folder, login, small_packets) if self.name == "mosquitto" else _rumqttd(login)
        with server:
            yield RunningBroker(self, server, self.address(server))

    def __str__(self) -> str:
        return f"{self.name}-{self.protocol}"


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that runs, and how to reach it."""

    kind: Kind
    server: Server
    broker: Broker

    @property
    def abilities(self) -> Abilities:
        return self.kind.abilities

    def through(self, url: str) -> Broker:
        """The same broker, reached through a proxy at ``url``."""
        return replace(self.broker, port=Broker.from_url(url).port)


KINDS = [
    Kind("mosquitto", "5", _MOSQUITTO_5),
    Kind("mosquitto", "3.1.1", _over_mqtt_3_1_1(_MOSQUITTO_5, bad_login="reason_code=5")),
    Kind("rumqttd", "5", _RUMQTTD_5),
    Kind("rumqttd", "3.1.1", _over_mqtt_3_1_1(_RUMQTTD_5, bad_login=_RUMQTTD_5.bad_login)),
]


def on(able: Callable[[Abilities], bool]) -> pytest.MarkDecorator:
    """Run a test on the brokers with these abilities alone, as it cannot be put to the others."""
    return on_kinds([kind for kind in KINDS if able(kind.abilities)])


def on_mqtt_5() -> pytest.MarkDecorator:
    """Run a test over MQTT 5 alone: the packets that it is about are of that version."""
    return on_kinds([kind for kind in KINDS if kind.protocol == "5"])


def on_kinds(kinds: list[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=str, indirect=True)


def _mosquitto(folder: Path, login: bool, small_packets: bool) -> Mosquitto:
    config = f"max_packet_size {SMALL_PACKETS_BYTES}\n" if small_packets else ""
    if login:
        passwords = folder / "passwords"
        passwords.touch()
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), USER, PASSWORD], check=True)
        config += f"password_file {passwords}\nallow_anonymous false\n"
    return Mosquitto(folder, config=config)


def _rumqttd(login: bool) -> EmbeddedBroker:
    return EmbeddedBroker(extra=f'auth = {{ {USER} = "{PASSWORD}" }}' if login else "")
