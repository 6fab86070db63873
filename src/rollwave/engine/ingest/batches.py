"""A queue of received messages, limited in number and bytes, and the loop that commits them in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import TypeAlias

from rollwave import metrics
from rollwave.mqtt.client import Incoming
from rollwave.tasks import end, failure_of

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Maximum number of bytes in a batch."""

QUIET_SECONDS = 0.001
"""Seconds without a message after which a batch is closed. A broker may limit unacknowledged messages (rumqttd: 100),
and sends more only when these are committed."""


@dataclass(slots=True)
class Batch:
    """Messages to commit together. ``behind``: it is full, so reports may arrive faster than they are written."""

    messages: list[Incoming] = field(default_factory=list)
    behind: bool = False


class MessageQueue:
    """Messages for up to two batches, with one writer and one reader."""

    def __init__(self, batch: int, max_wait_seconds: float) -> None:
        """``batch``: maximum number of messages. ``max_wait_seconds``: maximum time that the first message waits."""
        self._batch = batch
        self._max_wait_seconds = max_wait_seconds
        self._waiting: deque[Incoming] = deque()
        self._bytes = 0
        self._closed = False
        self._came, self._room = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Close the queue: no more messages are added, and those in it can still be read."""
        self._closed = True
        self._came.set()

    async def put(self, incoming: Incoming) -> None:
        """Add a message. Waits while the queue has two batches, in number or in bytes."""
        while len(self._waiting) >= 2 * self._batch or self._bytes >= 2 * MAX_BATCH_BYTES:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(incoming)
        self._bytes += incoming.size
        self._came.set()

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield batches. A batch ends at its maximum number, bytes or waiting time, or after 1 ms without a message."""
        loop = asyncio.get_running_loop()
        while await self._wait(None):
            batch, size, closes = Batch(), 0, loop.time() + self._max_wait_seconds
            while await self._wait(closes):
                size += self._move(batch, MAX_BATCH_BYTES - size)
                batch.behind = len(batch.messages) >= self._batch or size >= MAX_BATCH_BYTES
                if batch.behind:
                    break
            yield batch

    def _move(self, batch: Batch, room: int) -> int:
        """Move waiting messages into ``batch`` until it is full. Returns their bytes."""
        size = 0
        while self._waiting and size < room and len(batch.messages) < self._batch:
            incoming = self._waiting.popleft()
            batch.messages.append(incoming)
            size += incoming.size
        self._bytes -= size
        self._room.set()
        return size

    async def _wait(self, until: float | None) -> bool:
        """Whether a message is there, or comes before ``until`` or a pause. ``until`` None: wait for any time."""
        if not self._waiting and not self._closed:
            self._came.clear()
            try:
                async with asyncio.timeout_at(until and min(until, asyncio.get_running_loop().time() + QUIET_SECONDS)):
                    await self._came.wait()
            except TimeoutError:
                return False
        return bool(self._waiting)


MAX_BATCHES_IN_PARALLEL = 2
"""Maximum number of batches in progress. One is classified while the previous one is written (``Ingest.take_in``)."""

GIVE_UP_SECONDS = 3.0
"""Maximum number of seconds for the cancellation of a batch that was not committed in time."""

DRAIN_SECONDS = 5.0
"""Seconds in which batches in progress are committed at a stop. The broker keeps uncommitted messages."""

Commit: TypeAlias = Callable[[Batch], Coroutine[object, object, None]]


async def commit_in_order(
    queue: MessageQueue, commit: Commit, stop: asyncio.Event, *, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Commit every batch, in the order of the queue, until it is closed and empty.

    At a stop or a cancellation, batches in progress get ``drain_seconds`` to finish. The first error ends all of them.
    A cancellation is always raised, even if the batches in progress fail.
    """
    stopping = asyncio.create_task(stop.wait())
    commits: deque[asyncio.Task[None]] = deque()
    try:
        async for batch in queue.batches():
            metrics.report_lag.set(len(batch.messages) + len(queue))
            commits.append(asyncio.create_task(_close_if_it_fails(commit(batch), queue)))
            if len(commits) == MAX_BATCHES_IN_PARALLEL:
                await asyncio.wait({commits[0], stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                break
            if len(commits) == MAX_BATCHES_IN_PARALLEL:
                commits.popleft().result()
    finally:
        stopping.cancel()
        try:
            await _finish(commits, drain_seconds)
        finally:
            failures = [failure for task in commits if (failure := failure_of(task))]  # marks them as retrieved
    if failures:
        raise failures[0]


async def _close_if_it_fails(work: Coroutine[object, object, None], queue: MessageQueue) -> None:
    try:
        await work
    except BaseException:
        queue.close()
        raise


async def _finish(commits: Collection[asyncio.Task[None]], drain_seconds: float) -> None:
    """Wait for a limited time. A cancellation during that time is raised at the end."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + drain_seconds
    cancelled: asyncio.CancelledError | None = None
    while (left := deadline - clock()) > 0 and not all(task.done() for task in commits):
        try:
            await asyncio.wait(commits, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    await end(*commits, within=GIVE_UP_SECONDS)
    if cancelled is not None:
        raise cancelled
