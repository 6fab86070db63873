"""Cancelling reliably: one cancellation can be lost in a library, so it is repeated until the task ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from rollwave.log import get_logger

T = TypeVar("T")

_log = get_logger("tasks")

CANCEL_AGAIN_SECONDS = 0.5
"""Time for a task to clean up before it is cancelled again, in seconds."""


async def end(
    *tasks: asyncio.Task[Any], within: float, cancel_again: float = CANCEL_AGAIN_SECONDS
) -> frozenset[asyncio.Task[Any]]:
    """Cancel ``tasks`` repeatedly until they are done, for at most ``within`` seconds.

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


async def immune(work: Coroutine[Any, Any, T], *, within: float, cancel_again: float = CANCEL_AGAIN_SECONDS) -> T:
    """Await ``work`` that may lose a cancellation. A cancellation of the caller raises ``CancelledError`` in any case.

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
            task.exception()  # marks the exception as retrieved
        raise
    return task.result()


async def run_with(
    main: Coroutine[Any, Any, None],
    *beside: Coroutine[Any, Any, None],
    grace: float,
    within: float = 10.0,
) -> None:
    """Run ``main`` to its end, and the coroutines ``beside`` at the same time; then cancel those that still run.

    A coroutine of ``beside`` may return early. If one fails, ``main`` is cancelled. One exception is raised as it is,
    several as one ``ExceptionGroup``.

    Args:
        grace: seconds that ``main``, once cancelled, gets to finish what it has begun.
        within: maximum number of seconds for ``beside`` to end. A task that takes longer is logged and left behind.
    """
    leading = asyncio.create_task(main)
    others = [asyncio.create_task(each) for each in beside]
    running: set[asyncio.Task[Any]] = {leading, *others}
    try:
        while not leading.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if any(failure_of(task) for task in done):
                break
    finally:
        try:
            await end(leading, within=2 * grace, cancel_again=grace)
        finally:
            await end(*others, within=within)
        for task in (leading, *others):
            failure_of(task)  # marks it as retrieved, also if a cancellation is raised instead
        for task in [each for each in (leading, *others) if not each.done()]:
            _log.error("ota_task_stuck", task=task.get_name(), work=repr(task.get_coro()))
    failures = [failure for task in (leading, *others) if (failure := failure_of(task))]
    if len(failures) > 1:
        raise ExceptionGroup("several parts failed", failures)
    if failures:
        raise failures[0]


def failure_of(task: asyncio.Task[Any]) -> Exception | None:
    """The exception that ``task`` ended with. None: it still runs, was cancelled, or has succeeded."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return error
    raise error  # KeyboardInterrupt and its like


def causes(error: BaseException) -> list[BaseException]:
    """The errors inside an exception group, or the error itself if it is not a group."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in causes(each)]
    return [error]


def raise_if_cancelled() -> None:
    """Raise CancelledError if this task was cancelled. In Python 3.11 and 3.12, a group's error may hide that."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start ``work`` as a background task. An error that it does not handle is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.error("ota_task_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
