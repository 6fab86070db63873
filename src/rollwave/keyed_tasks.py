"""Runs one task per key: never two for the same key, and a limited number in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from rollwave.log import get_logger
from rollwave.tasks import end, start

_log = get_logger("worker")

Key = TypeVar("Key", bound=Hashable)

CANCEL_AGAIN_SECONDS = 1.0
"""Seconds after which clean-up work that still runs is cancelled too."""

CANCELLED_SECONDS = 15.0
"""Maximum number of seconds for cancelled work to end. After that, it is no longer waited for."""


class KeyedTasks(Generic[Key]):
    """Does ``work`` for keys, each in its own task.

    The work takes a ``turn`` for each part of it, and of all tasks only ``in_parallel`` have one at the same time. It
    handles its own errors: one that it lets out is logged, and ends it.
    """

    def __init__(self, work: Callable[[Key], Coroutine[Any, Any, None]], *, in_parallel: int) -> None:
        self._work = work
        self._turns = asyncio.Semaphore(in_parallel)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._asked_again: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        """Whether the key's task is running."""
        task = self._tasks.get(key)
        return task is not None and not task.done()

    def start(self, key: Key) -> None:
        """Start the key's task, unless it is running."""
        if key not in self:
            self._tasks[key] = start(self._run(key))

    def start_or_repeat(self, key: Key) -> None:
        """Start the key's task. If it has had its turn already, the work is done once more after that."""
        if key in self:
            self._asked_again.add(key)
        self.start(key)

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Wait for a turn, which lasts for the block. A repetition requested after its begin gets another turn."""
        async with self._turns:
            self._asked_again.discard(key)
            yield

    async def drain(self) -> None:
        """Wait until every task has ended."""
        while running := self._running:
            await asyncio.wait(running)

    async def cancel(self, within: float = CANCELLED_SECONDS) -> None:
        """Cancel every task, and wait for up to ``within`` seconds until they have ended."""
        self._asked_again.clear()
        for task in await end(*self._running, within=within, cancel_again=CANCEL_AGAIN_SECONDS):
            _log.error("ota_task_stuck", task=task.get_name(), work=repr(task.get_coro()))

    @property
    def _running(self) -> list[asyncio.Task[None]]:
        # A task that was cancelled before it began never removes itself.
        return [task for task in self._tasks.values() if not task.done()]

    async def _run(self, key: Key) -> None:
        try:
            await self._work(key)
            while key in self._asked_again:
                self._asked_again.discard(key)
                await self._work(key)
        finally:
            self._asked_again.discard(key)
            del self._tasks[key]
