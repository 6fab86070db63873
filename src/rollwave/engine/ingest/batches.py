"""What has been received and not yet taken in: bounded in messages and in bytes, and handed out in batches."""

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
"""Bytes that close a batch, as its count does."""

QUIET_SECONDS = 0.001
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
        while len(self._waiting) >= 2 * self._batch or self._bytes >= 2 * MAX_BATCH_BYTES:
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
                size += self._move(batch, MAX_BATCH_BYTES - size)
                batch.behind = len(batch.messages) >= self._batch or size >= MAX_BATCH_BYTES
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
                async with asyncio.timeout_at(until and min(until, asyncio.get_running_loop().time() + QUIET_SECONDS)):
                    await self._came.wait()
            except TimeoutError:
                return False
        return bool(self._waiting)


MAX_BATCHES_IN_PARALLEL = 2
"""Batches under way. Each sorts its messages and then waits for its turn to write (``Ingest.take_in``)."""

GIVE_UP_SECONDS = 3.0
"""Maximum number of seconds for a batch to be given up that was not committed in time."""

DRAIN_SECONDS = 5.0
"""Seconds that the batches in hand get to be committed when it is time to stop; else the broker keeps them."""

Commit: TypeAlias = Callable[[Batch], Coroutine[object, object, None]]


async def commit_in_order(
    inbox: Inbox, commit: Commit, stop: asyncio.Event, *, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """Commit every batch, begun in the order of the inbox, until that is closed and empty.

    Once a stop is asked for, or this task is cancelled, what is under way has ``drain_seconds`` to come to its end.
    The first error ends it all; a cancellation stays one, whatever becomes of what is under way.
    """
    stopping = asyncio.create_task(stop.wait())
    commits: deque[asyncio.Task[None]] = deque()
    try:
        async for batch in inbox.batches():
            metrics.report_lag.set(len(batch.messages) + len(inbox))
            commits.append(asyncio.create_task(_close_if_it_fails(commit(batch), inbox)))
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
            failures = [failure for task in commits if (failure := failure_of(task))]  # read, whatever is raised here
    if failures:
        raise failures[0]


async def _close_if_it_fails(work: Coroutine[object, object, None], inbox: Inbox) -> None:
    try:
        await work
    except BaseException:
        inbox.close()
        raise


async def _finish(commits: Collection[asyncio.Task[None]], drain_seconds: float) -> None:
    """Wait, but not for long. A cancellation meanwhile is raised at the end."""
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
