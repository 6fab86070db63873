"""Cancelling reliably: one cancellation can be lost in a library, so it is repeated until the task ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN = 0.5
"""Seconds that a task gets to clean up before it is cancelled once more."""


async def end(
    *tasks: asyncio.Task[Any], within: float, cancel_again: float = CANCEL_AGAIN
) -> frozenset[asyncio.Task[Any]]:
    """Cancel ``tasks`` again and again until they are done, for ``within`` seconds at most.

    Results and exceptions stay in the tasks: the caller reads them.

    Args:
        within: maximum number of seconds to wait for all tasks together.
        cancel_again: seconds between two cancellations of the same task.

    Returns:
        The tasks that are still not done. Empty in all but a programming error.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile. Raised at the end: the tasks are ended first.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    running = {task for task in tasks if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    while running:
        for task in running:
            task.cancel()
        try:
            await asyncio.wait(running, timeout=max(0.0, min(cancel_again, deadline - clock())))
        except asyncio.CancelledError as error:
            cancelled = error
        running = {task for task in running if not task.done()}
        if clock() >= deadline:
            break
    if cancelled is not None:
        raise cancelled
    return frozenset(running)


async def immune(work: Coroutine[Any, Any, T], *, within: float, cancel_again: float = CANCEL_AGAIN) -> T:
    """Await ``work`` that may lose a cancellation; one of the caller comes out as ``CancelledError`` all the same.

    Args:
        within: maximum number of seconds that the caller, once cancelled, waits for ``work`` to end. After that
            ``work`` is abandoned; the caller should close what it works on.
        cancel_again: seconds between two cancellations of ``work``.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await end(task, within=within, cancel_again=cancel_again)
        if task.done() and not task.cancelled():
            task.exception()  # nobody else reads it
        raise
    return task.result()
