"""Tasks are always ended, even if they lose a cancellation."""

from __future__ import annotations

import asyncio
import time

import pytest

from rollwave.tasks import end, immune


class IgnoresCancellations:
    """Work that loses its first cancellations, as a call inside a library may."""

    def __init__(self, loses: int) -> None:
        self.loses = loses
        self.cancelled = 0
        self.begun = asyncio.Event()

    async def work(self) -> None:
        while True:
            try:
                self.begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > self.loses:
                    raise

    async def task(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.work())
        await self.begun.wait()
        return task


async def test_ending_no_tasks_returns_at_once() -> None:
    assert await end(within=0.1) == frozenset()


async def test_a_task_that_is_done_is_left_alone() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "result"))
    await task
    assert await end(task, within=0.1) == frozenset()
    assert task.result() == "result"


@pytest.mark.parametrize("loses", [0, 1, 5])
async def test_a_task_is_cancelled_until_it_ends(loses: int) -> None:
    work = IgnoresCancellations(loses)
    task = await work.task()
    assert await end(task, within=5, cancel_again=0.01) == frozenset()
    assert task.cancelled()
    assert work.cancelled == loses + 1


async def test_a_task_is_not_cancelled_again_while_it_cleans_up() -> None:
    cleaned, release = [], asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()
            cleaned.append(True)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, release.set)
    assert await end(task, within=5) == frozenset()
    assert cleaned == [True]


async def test_tasks_that_do_not_end_are_returned_after_the_timeout() -> None:
    never_ending, ending = IgnoresCancellations(10**9), IgnoresCancellations(0)
    tasks = [await never_ending.task(), await ending.task()]
    began = time.monotonic()
    assert await end(*tasks, within=0.1, cancel_again=0.01) == frozenset(tasks[:1])
    assert 0.1 <= time.monotonic() - began < 1
    assert tasks[1].cancelled()
    never_ending.loses = 0
    assert await end(*tasks, within=1) == frozenset()


async def test_errors_of_cancelled_tasks_are_not_raised() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("lost")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    assert await end(task, within=1) == frozenset()
    assert isinstance(task.exception(), KeyError)


@pytest.mark.parametrize("loses", [1, 10**9], ids=["one that ends", "one that does not"])
async def test_cancelling_the_caller_ends_the_tasks_first(loses: int) -> None:
    work = IgnoresCancellations(loses)
    task = await work.task()
    ending = asyncio.create_task(end(task, within=0.2, cancel_again=0.02))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert task.done() is (loses == 1)
    work.loses = 0
    await end(task, within=1)


async def test_immune_returns_the_result_or_raises_the_error() -> None:
    async def fails() -> None:
        raise KeyError("no")

    assert await immune(asyncio.sleep(0, "result"), within=1) == "result"
    with pytest.raises(KeyError):
        await immune(fails(), within=1)


@pytest.mark.parametrize("loses", [0, 3, 10**9])
async def test_a_caller_is_cancelled_whatever_it_awaits(loses: int) -> None:
    work = IgnoresCancellations(loses)
    task = asyncio.create_task(immune(work.work(), within=0.1, cancel_again=0.01))
    await work.begun.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=1)
    work.loses = 0
    assert done == {task}
    assert task.cancelled()


async def test_a_callers_timeout_is_raised_to_the_caller() -> None:
    work = IgnoresCancellations(2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await immune(work.work(), within=1, cancel_again=0.01)
