"""Batches on their way: one is being written while the one before it is acknowledged and the next one is gathered."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import TypeAlias

from rollwave import metrics
from rollwave.engine.inbox import Batch, Inbox
from rollwave.tasks import end, failure_of

AT_ONCE = 2
"""Batches under way. Each sorts its messages and then waits for its turn to write (``Intake.take_in``)."""

ENDING = 3.0
"""Maximum number of seconds for a batch to be given up that was not committed in time."""

DRAIN = 5.0
"""Seconds that the batches in hand get to be committed when it is time to stop; else the broker keeps them."""

Commit: TypeAlias = Callable[[Batch], Coroutine[object, object, None]]


async def run(inbox: Inbox, commit: Commit, stop: asyncio.Event) -> None:
    """Commit every batch, begun in the order of the inbox, until that is closed and empty.

    Once a stop is asked for, or this task is cancelled, what is under way has ``DRAIN`` seconds to come to its end.
    The first error ends it all; a cancellation stays one, whatever becomes of what is under way.
    """
    stopping = asyncio.create_task(stop.wait())
    commits: deque[asyncio.Task[None]] = deque()
    try:
        async for batch in inbox.batches():
            metrics.report_lag.set(len(batch.messages) + len(inbox))
            commits.append(asyncio.create_task(_close_if_it_fails(commit(batch), inbox)))
            if len(commits) == AT_ONCE:
                await asyncio.wait({commits[0], stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                break
            if len(commits) == AT_ONCE:
                commits.popleft().result()
    finally:
        stopping.cancel()
        try:
            await _finish(commits)
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


async def _finish(commits: Collection[asyncio.Task[None]]) -> None:
    """Wait, but not for long. A cancellation meanwhile is raised at the end."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + DRAIN
    cancelled: asyncio.CancelledError | None = None
    while (left := deadline - clock()) > 0 and not all(task.done() for task in commits):
        try:
            await asyncio.wait(commits, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    await end(*commits, within=ENDING)
    if cancelled is not None:
        raise cancelled
