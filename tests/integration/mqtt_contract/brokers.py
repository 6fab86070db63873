"""The brokers of the suite, and a table of the abilities of each. Tests read the table. None of them skips."""

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
"""The only login of a broker that is started with ``login``."""

SMALL_PACKETS_BYTES = 1_500
"""The packet limit of a Mosquitto that is started with ``small_packets``."""

Server: TypeAlias = Mosquitto | EmbeddedBroker


@dataclass(frozen=True, slots=True)
class Abilities:
    """The abilities of a broker, over one version of the protocol.

    All are optional in MQTT, or exist in MQTT 5 only.
    """

    carries_properties: bool
    """The attempt and the time to expiry travel with a message."""
    refuses_publishes: bool
    """It has access rules, and its PUBACK reports a refused message.

    Otherwise the message is dropped without notice.
    """
    announces_limit: bool
    """It announces its packet limit on connecting, if it has one."""
    remembers_over_restart: bool
    """Persistent sessions survive a restart of the broker."""
    withholds_retained: bool
    """A new subscription can ask not to receive messages that were retained before it."""
    marks_retained: bool
    """A subscription can ask that messages published as retained keep the retain flag."""
    names_takeover: bool
    """It gives the reason when it ends a session whose client id another client has taken."""
    bad_login: str
    """The reason in the error message for a wrong password."""
    bad_client_id: str
    """A client id that it refuses. Empty: it accepts every client id."""
    takes_bytes: int
    """The largest payload that it accepts, when started with ``small_packets`` if that is possible."""


_MOSQUITTO_5 = Abilities(
    carries_properties=True,
    refuses_publishes=True,
    announces_limit=True,
    remembers_over_restart=True,
    withholds_retained=True,
    marks_retained=True,
    names_takeover=False,  # Later versions of Mosquitto than 2.0.11 give it.
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
    """A kind of broker, over one version of the protocol."""

    name: Literal["mosquitto", "rumqttd"]
    protocol: Protocol
    abilities: Abilities

    def address(self, server: Server) -> Broker:
        """The address of ``server`` for this version of the protocol."""
        old_listener = isinstance(server, EmbeddedBroker) and self.protocol == "3.1.1"
        url = server.url_v4 if isinstance(server, EmbeddedBroker) and old_listener else server.url
        return Broker.from_url(url, protocol=self.protocol)

    @contextmanager
    def start(self, folder: Path, *, login: bool = False, small_packets: bool = False) -> Iterator[RunningBroker]:
        """Run a broker for one test, which may stop, freeze and restart it.

        ``login``: only ``USER`` may connect. ``small_packets``: it accepts payloads of up to ``takes_bytes``.
        """
        server = _mosquitto(folder, login, small_packets) if self.name == "mosquitto" else _rumqttd(login)
        with server:
            yield RunningBroker(self, server, self.address(server))

    def __str__(self) -> str:
        return f"{self.name}-{self.protocol}"


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A running broker, and its address."""

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
    """Run a test only on brokers with these abilities. The others cannot do what it tests."""
    return on_kinds([kind for kind in KINDS if able(kind.abilities)])


def on_mqtt_5() -> pytest.MarkDecorator:
    """Run a test over MQTT 5 only, because it uses packets of that version."""
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
