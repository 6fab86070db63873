"""The engine's side of the MQTT contract, controlled by a test: it sends commands and receives reports."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_command
from rollwave.mqtt.topics import STATUS_FILTER, command_topic, parse_status_topic

TENANT = "north"


@dataclass
class EngineSide:
    """Publishes commands, and keeps the reports of each device in the order received."""

    session: Session
    reports: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    async def command(
        self,
        device: str,
        campaign: int,
        url: str,
        checksum: str = "",
        *,
        attempt: int | None = 1,
        version: str = "2.0.0",
        size: int | None = None,
    ) -> None:
        """Send one command. Returns after the broker has acknowledged it."""
        body = encode_command(campaign, url, version, checksum, size)
        receipt = await self.session.publish(command_topic(TENANT, device), body, attempt=attempt)
        await receipt.acknowledged()

    def outcomes(self, device: str) -> list[str]:
        """The final statuses that ``device`` has reported so far."""
        return [report["status"] for report in self.reports[device] if report["status"] in {"SUCCESS", "FAILED"}]

    def statuses(self, device: str) -> list[str]:
        """All statuses that it has reported so far, without repeats in a row."""
        statuses = [report["status"] for report in self.reports[device]]
        return [status for index, status in enumerate(statuses) if index == 0 or statuses[index - 1] != status]

    async def collect(self) -> None:
        async for incoming in self.session.messages():
            parsed = parse_status_topic(incoming.topic)
            assert parsed
            self.reports[parsed[1]].append(json.loads(incoming.payload))


@asynccontextmanager
async def open_engine_side(url: str) -> AsyncIterator[EngineSide]:
    async with Session.connect(Broker.from_url(url)) as session:
        await session.subscribe(STATUS_FILTER)
        engine_side = EngineSide(session)
        collector = asyncio.create_task(engine_side.collect())
        try:
            yield engine_side
        finally:
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)
