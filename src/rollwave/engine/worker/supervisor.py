"""Runs named tasks until a signal, or until one of them fails. Then all of them finish their work and end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping

from rollwave.errors import RollwaveError
from rollwave.log import get_logger
from rollwave.tasks import end, failure_of

_log = get_logger("supervisor")

DRAIN_SECONDS = 20.0
"""Seconds in which tasks finish their work at a stop. After that they are cancelled."""

CANCELLED_SECONDS = 8.0
"""Seconds for cancelled tasks to end. After that they end with the process."""

Work = Callable[[asyncio.Event], Coroutine[object, object, None]]
"""A task: it runs until the event is set, then finishes its work and returns."""


class Supervisor:
    """Runs tasks until SIGTERM or SIGINT, or until one of them ends by itself."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self.stopping = asyncio.Event()

    def add(self, name: str, work: Work) -> None:
        """Add a task before :meth:`run`."""
        self._works[name] = work

    async def run(self) -> None:
        """Run all tasks until a stop, then wait until they have finished their work.

        Raises:
            RollwaveError: a task failed, or ended before the stop. The others have finished their work.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        tasks = {asyncio.create_task(work(self.stopping)): name for name, work in self._works.items()}
        signalled = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait([signalled, *tasks], return_when=asyncio.FIRST_COMPLETED)
            early = [name for task, name in tasks.items() if task.done() and not self.stopping.is_set()]
            _log.info("stopping", reason=f"{early[0]} ended" if early else "asked to")
            self.stopping.set()
            await _drain(tasks)
        finally:
            signalled.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        for task, name in tasks.items():
            error = failure_of(task)
            if isinstance(error, RollwaveError):
                raise error
            if error is not None:
                raise RollwaveError(f"{name} failed: {type(error).__name__}: {error}") from error
        if early:
            raise RollwaveError(f"{early[0]} ended without being asked to")


async def _drain(tasks: Mapping[asyncio.Task[None], str]) -> None:
    _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    for task in late:
        _log.warning("drain_timed_out", task=tasks[task])
    for task in await end(*late, within=CANCELLED_SECONDS):
        _log.error("ota_task_stuck", task=tasks[task])
