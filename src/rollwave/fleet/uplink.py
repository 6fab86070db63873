"""One connection that carries the reports of many devices, in the order given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from rollwave.device.connection import together
from rollwave.device.outbox import Outgoing
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import status_topic

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Said:
    """One device's report."""

    device_id: str
    report: Outgoing


class Uplink:
    """A queue of reports; what the broker has not acknowledged is sent again on the next session."""

    def __init__(self, tenant_id: str, on_delivered: Callable[[Said], None]) -> None:
        self._tenant_id = tenant_id
        self._on_delivered = on_delivered
        self._queue: deque[Said] = deque()
        self._filled = asyncio.Event()

    def put(self, said: Said) -> None:
        """Have it sent, now or when the broker is back."""
        self._queue.append(said)
        self._filled.set()

    async def serve(self, session: Session) -> None:
        """Send until the session is lost."""
        await together(self._send(session), _listen(session))

    async def _send(self, session: Session) -> NoReturn:
        while True:
            await self._filled.wait()
            batch = list(islice(self._queue, _BATCH))
            receipts = [
                await session.publish(status_topic(self._tenant_id, said.device_id), said.report.encode())
                for said in batch
            ]
            for said, receipt in zip(batch, receipts, strict=True):
                await receipt.acknowledged()
                self._queue.popleft()
                self._on_delivered(said)
            if not self._queue:
                self._filled.clear()


async def _listen(session: Session) -> None:
    """Nothing is subscribed to: this only ends, with the session, also while there is nothing to send."""
    async for _ in session.messages():
        pass
