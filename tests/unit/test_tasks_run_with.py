"""Work that runs beside other work: no error is lost, and a lost cancellation blocks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rollwave.tasks import causes, run_with, start

GRACE = 0.2


class IgnoresCancellations:
    """Work that ignores its first cancellations."""

    def __init__(self, ignores: int) -> None:
        self.ignores = ignores
        self.cancelled = 0

    async def work(self) -> None:
        while self.cancelled <= self.ignores:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1


async def nothing() -> None:
    await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


def run(main: Coroutine[Any, Any, None], *beside: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return asyncio.wait_for(run_with(main, *beside, grace=GRACE, within=2.0), 10)


async def test_companion_tasks_end_with_the_main_work() -> None:
    ignoring = IgnoresCancellations(1)
    await run(nothing(), ignoring.work(), nothing())
    assert ignoring.cancelled == 2


async def test_work_that_ignores_cancellation_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    ignoring = IgnoresCancellations(1000)
    await run(nothing(), ignoring.work())
    assert [record.message for record in caplog.records] == ["ota_task_stuck"]
    ignoring.ignores = 0
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_an_error_of_a_companion_task_ends_the_main_work_cleanly() -> None:
    finished = False

    async def main() -> None:
        nonlocal finished
        try:
            await for_ever()
        finally:
            await asyncio.sleep(GRACE / 4)
            finished = True

    with pytest.raises(KeyError, match="lost"):
        await run(main(), fails(KeyError("lost")), for_ever())
    assert finished


async def test_several_errors_are_all_raised() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run(fails(ValueError()), fails(KeyError()))
    assert {type(each) for each in causes(caught.value)} == {ValueError, KeyError}


async def test_a_cancellation_is_passed_to_the_main_work() -> None:
    ignoring = IgnoresCancellations(1)
    running = asyncio.create_task(run_with(for_ever(), ignoring.work(), grace=GRACE, within=2.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled()
    assert ignoring.cancelled == 2


async def test_the_error_of_an_abandoned_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = start(fails(KeyError("lost")))
    await asyncio.wait({task})
    await asyncio.sleep(0)
    [record] = caplog.records
    assert record.message == "ota_task_failed"
    assert record.exc_info
