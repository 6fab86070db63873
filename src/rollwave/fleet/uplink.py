"""One connection that sends the reports of many devices, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from rollwave.device.connection import run_until_first
from rollwave.device.outbox import Outgoing
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import status_topic

_BATCH = 500


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A report, and the device that sends it."""

    device_id: str
    report: Outgoing


class Uplink:
    """A queue of reports. Reports that the broker has not acknowledged are sent again in the next session."""

    def __init__(self, tenant_id: str, on_delivered: Callable[[DeviceReport], None]) -> None:
        self._tenant_id = tenant_id
        self._on_delivered = on_delivered
        self._queue: deque[DeviceReport] = deque()
        self._filled = asyncio.Event()

    def put(self, sent: DeviceReport) -> None:
        """Add a report to the queue. It is sent now, or when the broker is available again."""
        self._queue.append(sent)
        self._filled.set()

    async def serve(self, session: Session) -> None:
        """Send reports until the session is lost."""
        await run_until_first(self._send(session), _listen(session))

    async def _send(self, session: Session) -> NoReturn:
        while True:
            await self._filled.wait()
            batch = list(islice(self._queue, _BATCH))
            receipts = [
                await session.publish(status_topic(self._tenant_id, sent.device_id), sent.report.encode())
                for sent in batch
            ]
            for sent, receipt in zip(batch, receipts, strict=True):
                await receipt.acknowledged()
                self._queue.popleft()
                self._on_delivered(sent)
            if not self._queue:
                self._filled.clear()


async def _listen(session: Session) -> None:
    """Wait for the end of the session, so that it is noticed while there is nothing to send. No message arrives."""
    async for _ in session.messages():
        pass
