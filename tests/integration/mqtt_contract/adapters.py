"""The MQTT client adapters under test. Every test of this folder runs with each of them, on each broker.

An adapter has the interface of :class:`rollwave.mqtt.client.Session`: the class method ``connect``, and on what it
yields the same methods and properties, with ``Receipt`` and ``Incoming`` for what they return. To test a second one:

1. Write it under ``rollwave.mqtt``, so that it takes a :class:`rollwave.mqtt.broker.Broker`.
2. Add it to :data:`ADAPTERS` under a name of its own.
3. Run ``make test ARGS="tests/integration/mqtt_contract"``; ``-k <its name>`` runs its tests alone.

What a broker does differently stands in ``brokers.py``, never in a test.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session


class Adapter(Protocol):
    """What the engine, the device agent and the fleet open their sessions with."""

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
