"""What has been received and not yet taken in: bounded in messages and in bytes, and handed out in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rollwave.mqtt.client import Incoming

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes that close a batch, as its count does."""

QUIET = 0.003
"""Seconds without a message after which a batch waits for no more. A broker may leave only so many messages
unacknowledged (rumqttd: 100), and sends the next when these are committed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages to be committed together; ``behind``: it is full, as when more comes than is written."""

    messages: list[Incoming]
    behind: bool


class Inbox(asyncio.Queue[Incoming | None]):
    """Holds up to two batches, so that one can wait while the last is gathered. None is its end."""

    def __init__(self, batch: int, patience: float) -> None:
        """``batch``: messages of one batch; ``patience``: seconds that the first of them waits for the others."""
        super().__init__(2 * batch)
        self._batch = batch
        self._patience = patience
        self._bytes = 0
        self._closed = False

    def close(self) -> None:
        """No more will come; what is here is handed out still."""
        self._closed = True
        self.put_nowait(None)

    def full(self) -> bool:
        """Whether it takes no more for now."""
        return not self._closed and (super().full() or self._bytes >= 2 * BATCH_BYTES)

    def _put(self, item: Incoming | None) -> None:
        self._bytes += item.size if item else 0
        super()._put(item)

    def _get(self) -> Incoming | None:
        item = super()._get()
        self._bytes -= item.size if item else 0
        return item

    async def batches(self) -> AsyncIterator[Batch]:
        """Gather messages by count, by bytes, by a few tens of milliseconds, or until none comes: what is first."""
        loop = asyncio.get_running_loop()
        while (first := await self.get()) is not None:
            messages, size = [first], first.size
            more: Incoming | None = first
            closes = loop.time() + self._patience
            try:
                async with asyncio.timeout_at(closes) as patience:
                    while more is not None and len(messages) < self._batch and size < BATCH_BYTES:
                        if self.empty():
                            patience.reschedule(min(closes, loop.time() + QUIET))
                        more = self.get_nowait() if self.qsize() else await self.get()
                        if more is not None:
                            messages.append(more)
                            size += more.size
            except TimeoutError:
                pass  # it is time, not size, that closes this batch
            yield Batch(messages, behind=len(messages) >= self._batch or size >= BATCH_BYTES)
            if more is None:
                return
