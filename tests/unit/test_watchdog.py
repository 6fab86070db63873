"""Work that failed, or that shows no sign of life, is started again."""

from __future__ import annotations

import asyncio

import pytest

from rollwave.engine.watchdog import Life, Times, keep_running
from rollwave.errors import ConfigurationError

SHORT = Times(look_every_seconds=0.01, give_up_seconds=0.1, restart_seconds=0.01)


async def test_failed_work_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0

    async def work(_life: Life) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise KeyError("lost")

    await asyncio.wait_for(keep_running("work", work, silence=5, drain=1, times=SHORT), 5)
    assert runs == 3
    assert [(record.message, bool(record.exc_info)) for record in caplog.records] == [("ota_task_failed", True)] * 2


@pytest.mark.parametrize("obeys", [True, False])
async def test_work_without_a_heartbeat_is_replaced(caplog: pytest.LogCaptureFixture, obeys: bool) -> None:
    runs, released = 0, asyncio.Event()

    async def work(_life: Life) -> None:
        nonlocal runs
        runs += 1
        while runs == 1 and not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                if obeys:
                    raise

    await asyncio.wait_for(keep_running("work", work, silence=0.05, drain=1, times=SHORT), 5)
    released.set()
    assert runs == 2
    assert [record.message for record in caplog.records] == ["ota_task_stuck"]


async def test_work_with_a_regular_heartbeat_continues() -> None:
    runs = 0

    async def work(life: Life) -> None:
        nonlocal runs
        runs += 1
        for _ in range(150):
            await asyncio.sleep(0.01)
            life.sign()

    await asyncio.wait_for(keep_running("work", work, silence=1, drain=1, times=SHORT), 5)
    assert runs == 1


async def test_a_configuration_error_ends_the_watchdog() -> None:
    async def work(_life: Life) -> None:
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        await keep_running("work", work, silence=5, drain=1, times=SHORT)


async def test_a_cancellation_leaves_the_work_time_to_finish() -> None:
    finished = False

    async def work(_life: Life) -> None:
        nonlocal finished
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            finished = True

    running = asyncio.create_task(keep_running("work", work, silence=5, drain=1, times=SHORT))
    await asyncio.sleep(0.03)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled()
    assert finished
