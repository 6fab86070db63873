"""Reports go before commands."""

from __future__ import annotations

import asyncio

import pytest

from rollwave.engine import backpressure
from rollwave.engine.backpressure import REPORTS_NOT_WAITED_FOR, Backpressure


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_sending_waits_for_the_reports_of_all_running_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "LONGEST_PAUSE_SECONDS", 3600.0)
    reports = Backpressure()
    with reports.hearing(REPORTS_NOT_WAITED_FOR):
        await asyncio.wait_for(reports.give_way(), 10)
        with reports.hearing(1):
            sending = asyncio.create_task(reports.give_way())
            await turns()
            assert not sending.done(), "those are too many"
        await asyncio.wait_for(sending, 10)


async def test_sending_waits_for_reports_no_longer_than_the_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "LONGEST_PAUSE_SECONDS", 0.001)
    reports = Backpressure()
    with reports.hearing(REPORTS_NOT_WAITED_FOR + 1):
        await asyncio.wait_for(reports.give_way(), 10)
