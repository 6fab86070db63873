"""Backpressure: sending pauses while too many reports wait to be committed, and never for longer than the maximum."""

from __future__ import annotations

import asyncio

from rollwave.engine.backpressure import MAX_WAITING_REPORTS, Backpressure


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_sending_waits_for_the_reports_of_all_running_batches() -> None:
    backpressure = Backpressure(max_pause_seconds=3600.0)
    with backpressure.hearing(MAX_WAITING_REPORTS):
        await asyncio.wait_for(backpressure.give_way(), 10)
        with backpressure.hearing(1):
            sending = asyncio.create_task(backpressure.give_way())
            await turns()
            assert not sending.done(), "too many reports wait"
        await asyncio.wait_for(sending, 10)


async def test_sending_waits_for_reports_no_longer_than_the_maximum() -> None:
    backpressure = Backpressure(max_pause_seconds=0.001)
    with backpressure.hearing(MAX_WAITING_REPORTS + 1):
        await asyncio.wait_for(backpressure.give_way(), 10)
