"""The MQTT client adapters under test. Every test of this folder runs with each of them, on each broker.

An adapter has the interface of :class:`rollwave.mqtt.client.Session`: the class method ``connect``, and on the
session that it yields the same methods and properties, with ``Receipt`` and ``Incoming`` as return types.
To test a second one:

1. Write it under ``rollwave.mqtt``, so that it accepts a :class:`rollwave.mqtt.broker.Broker`.
2. Add it to :data:`ADAPTERS` under its own name.
3. Run ``make test ARGS="tests/integration/mqtt_contract"``. ``-k <its name>`` runs its tests only.

Differences between brokers belong in ``brokers.py``, never in a test.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session


class Adapter(Protocol):
    """The class with which the engine, the device agent and the fleet open sessions."""

    def connect(
        self,
        broker: Broker,
        client_id: str = "",
        *,
        persistent: bool = False,
        manual_ack: bool = False,
        buffer: int = 5000,
        timeout: float = 10.0,
    ) -> AbstractAsyncContextManager[Session]: ...


ADAPTERS: dict[str, Adapter] = {"mqttium": Session}
