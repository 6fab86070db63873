"""Connects a simulated fleet to the broker: one connection receives all commands, the others send the reports.

One subscription with a wildcard is enough for any number of devices, and is renewed with one packet after an
outage. Reports are most of the traffic, so they are distributed over several connections. A device always uses the
same one, so that its reports stay in order.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, Self

from rollwave.device.connection import keep_connected
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import BrokerUnavailable, InvalidInput
from rollwave.fleet.population import FleetPlan, Population
from rollwave.fleet.tally import FleetTally, Ledger
from rollwave.fleet.uplink import DeviceReport, Uplink
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import decode_command, read_cancel
from rollwave.mqtt.topics import command_topic

_log = get_logger("fleet")


class Fleet:
    """Simulated devices, which run inside ``async with``. They reconnect by themselves."""

    def __init__(self, broker: Broker, plan: FleetPlan) -> None:
        self._broker = broker
        self._tenant_id = plan.tenant_id
        # Random, as two fleets may share a tenant. Its session with the broker is removed at the end.
        self.client_id = f"fleet:{plan.tenant_id}:{secrets.token_hex(4)}"
        self._devices = {command_topic(plan.tenant_id, device): device for device in plan.device_ids}
        self._ledger = Ledger()
        self._uplinks = [Uplink(plan.tenant_id, self._ledger.delivered) for _ in range(max(1, plan.connections - 1))]
        self._population = Population(plan, self._ledger, self._send)
        self._subscribed = asyncio.Event()
        self._connections: list[asyncio.Task[Any]] = []

    @property
    def ready(self) -> Awaitable[Any]:
        """Await this until the fleet is subscribed to commands."""
        return self._subscribed.wait()

    @property
    def connected(self) -> bool:
        """Whether the fleet can receive commands now."""
        return self._subscribed.is_set()

    @property
    def tally(self) -> FleetTally:
        """The counts so far."""
        return self._ledger.snapshot()

    @property
    def received(self) -> Mapping[str, int]:
        """Commands received, by device."""
        return self._ledger.received

    @property
    def cancels(self) -> Mapping[str, int]:
        """Cancel commands received, by device."""
        return self._ledger.cancels

    @property
    def outcomes(self) -> Mapping[int, Mapping[str, ExecutionStatus]]:
        """Outcomes that the broker has acknowledged, by campaign and device."""
        return self._ledger.outcomes

    async def __aenter__(self) -> Self:
        works = [keep_connected(self._broker, self.client_id, self._listen, persistent=True)]
        works += [
            keep_connected(self._broker, f"{self.client_id}:{number}", uplink.serve)
            for number, uplink in enumerate(self._uplinks, 1)
        ]
        self._connections = [asyncio.create_task(work) for work in works]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._population.aclose()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        # Removes the session: otherwise the broker would keep queueing commands for it.
        with suppress(BrokerUnavailable):
            async with Session.connect(self._broker, self.client_id, timeout=2.0):
                pass

    async def _listen(self, session: Session) -> None:
        topic = command_topic(self._tenant_id, "+")
        await session.subscribe(topic)
        _log.info("fleet_connected", topic=topic, devices=len(self._devices))
        self._subscribed.set()
        try:
            async for incoming in session.messages():
                device_id = self._devices.get(incoming.topic)
                if device_id is not None:
                    self._deliver(device_id, incoming)
        finally:
            self._subscribed.clear()

    def _deliver(self, device_id: str, incoming: Incoming) -> None:
        cancelled = read_cancel(incoming.payload)
        if cancelled is not None:
            self._population.cancel(device_id, cancelled, retained=incoming.retain)
            return
        try:
            command = decode_command(incoming.payload)
        except InvalidInput as error:
            _log.warning("fleet_command_unreadable", device_id=device_id, reason=str(error))
            return
        self._population.take(device_id, command, incoming.attempt, retained=incoming.retain)

    def _send(self, report: DeviceReport) -> None:
        number = zlib.crc32(report.device_id.encode()) % len(self._uplinks)
        self._uplinks[number].put(report)
