"""Restarts work that has failed, or that gives no sign of life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from rollwave.errors import ConfigurationError
from rollwave.log import get_logger
from rollwave.tasks import end, failure_of, raise_if_cancelled

_log = get_logger("watchdog")


LOOK_EVERY_SECONDS = 1.0
"""Seconds between two checks of the work."""

GIVE_UP_SECONDS = 15.0
"""Maximum number of seconds for stuck work to end after it was cancelled. After that, it is no longer waited for."""

RESTART_SECONDS = 2.0
"""Seconds before work that failed is started again."""


@dataclass(frozen=True, slots=True)
class Times:
    """The three times above, in seconds."""

    look_every_seconds: float = LOOK_EVERY_SECONDS
    give_up_seconds: float = GIVE_UP_SECONDS
    restart_seconds: float = RESTART_SECONDS


TIMES = Times()


class Life:
    """The last sign of life of some work."""

    def __init__(self) -> None:
        self._seen = time.monotonic()

    def sign(self) -> None:
        """Record a sign of life."""
        self._seen = time.monotonic()

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign."""
        return time.monotonic() - self._seen


async def keep_running(
    name: str,
    work: Callable[[Life], Coroutine[object, object, None]],
    *,
    silence: float,
    drain: float,
    times: Times = TIMES,
) -> None:
    """Run ``work`` until it returns. It is started again when it fails, or gives no sign of life.

    Args:
        silence: seconds without a sign of life after which the work counts as stuck.
        drain: seconds that the work gets to finish what it has begun, when this is cancelled.

    Raises:
        ConfigurationError: the work cannot be done with these settings.
    """
    while True:
        life = Life()
        task = asyncio.create_task(work(life))
        try:
            while not task.done() and life.silent_for < silence:
                await asyncio.wait({task}, timeout=times.look_every_seconds)
        except asyncio.CancelledError:
            await end(task, within=2 * drain, cancel_again=drain)
            failure_of(task)
            raise
        if not task.done():
            _log.error("ota_task_stuck", task=name, silent_for=round(life.silent_for))
            await end(task, within=times.give_up_seconds)
        elif (failure := failure_of(task)) is None:
            raise_if_cancelled()
            if not task.cancelled():
                return
        elif isinstance(failure, ConfigurationError):
            raise failure
        else:
            _log.error("ota_task_failed", task=name, error=f"{type(failure).__name__}: {failure}", exc_info=failure)
        await asyncio.sleep(times.restart_seconds)
