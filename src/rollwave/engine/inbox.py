"""What has been received and not yet taken in: bounded in messages and in bytes, and handed out in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from rollwave.mqtt.client import Incoming

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes that close a batch, as its count does."""

QUIET = 0.001
"""Seconds without a message after which a batch waits for no more. A broker may leave only so many messages
unacknowledged (rumqttd: 100), and sends the next when these are committed."""


@dataclass(slots=True)
class Batch:
    """Messages to be committed together; ``behind``: it is full, as when more comes than is written."""

    messages: list[Incoming] = field(default_factory=list)
    behind: bool = False


class Inbox:
    """Holds up to two batches, for one that fills it and one that takes from it."""

    def __init__(self, batch: int, patience: float) -> None:
        """``batch``: messages of one batch; ``patience``: seconds that the first of them waits for the others."""
        self._batch = batch
        self._patience = patience
        self._waiting: deque[Incoming] = deque()
        self._bytes = 0
        self._closed = False
        self._came, self._room = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """No more will come; what is here is handed out still."""
        self._closed = True
        self._came.set()

    async def put(self, incoming: Incoming) -> None:
        """Add a message; waits while two batches are here, in count or in bytes."""
        while len(self._waiting) >= 2 * self._batch or self._bytes >= 2 * BATCH_BYTES:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(incoming)
        self._bytes += incoming.size
        self._came.set()

    async def batches(self) -> AsyncIterator[Batch]:
        """Gather messages by count, by bytes, by a few tens of milliseconds, or until none comes: what is first."""
        loop = asyncio.get_running_loop()
        while await self._wait(None):
            batch, size, closes = Batch(), 0, loop.time() + self._patience
            while await self._wait(closes):
                size += self._move(batch, BATCH_BYTES - size)
                batch.behind = len(batch.messages) >= self._batch or size >= BATCH_BYTES
                if batch.behind:
                    break
            yield batch

    def _move(self, batch: Batch, room: int) -> int:
        """Put what is here into ``batch``, until it is full; returns how many bytes that was."""
        size = 0
        while self._waiting and size < room and len(batch.messages) < self._batch:
            incoming = self._waiting.popleft()
            batch.messages.append(incoming)
            size += incoming.size
        self._bytes -= size
        self._room.set()
        return size

    async def _wait(self, until: float | None) -> bool:
        """Whether there is a message: now, or, unless it stays quiet, by ``until``. None: whenever it comes."""
        if not self._waiting and not self._closed:
            self._came.clear()
            try:
                async with asyncio.timeout_at(until and min(until, asyncio.get_running_loop().time() + QUIET)):
                    await self._came.wait()
            except TimeoutError:
                return False
        return bool(self._waiting)
