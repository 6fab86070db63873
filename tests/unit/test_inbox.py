from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rollwave.engine.inbox import BATCH_BYTES, Inbox
from rollwave.mqtt.client import Incoming

NOT_A_MESSAGE: Any = None


def message(size: int = 10) -> Incoming:
    return Incoming("t", bytes(size - 1), retain=False, attempt=None, handle=NOT_A_MESSAGE)


async def filled(inbox: Inbox, *sizes: int) -> Inbox:
    for size in sizes:
        inbox.put_nowait(message(size))
    inbox.close()
    return inbox


async def test_a_batch_closes_by_count_and_says_that_it_is_full() -> None:
    inbox = await filled(Inbox(3, 1.0), *[10] * 5)
    assert [(len(batch.messages), batch.behind) async for batch in inbox.batches()] == [(3, True), (2, False)]


async def test_a_batch_closes_by_bytes() -> None:
    big = BATCH_BYTES // 2
    inbox = await filled(Inbox(100, 1.0), big, big, 10, 10)
    assert [(len(batch.messages), batch.behind) async for batch in inbox.batches()] == [(2, True), (2, False)]


async def test_it_is_full_at_two_batches_in_count_or_in_bytes() -> None:
    many, heavy = Inbox(2, 1.0), Inbox(100, 1.0)
    for _ in range(4):
        many.put_nowait(message())
    for _ in range(2):
        heavy.put_nowait(message(BATCH_BYTES))
    for inbox in (many, heavy):
        with pytest.raises(asyncio.QueueFull):
            inbox.put_nowait(message())
        waiting = asyncio.create_task(inbox.put(message()))
        await asyncio.sleep(0)
        assert not waiting.done()
        inbox.get_nowait()
        await waiting


async def test_what_is_there_when_it_closes_is_handed_out() -> None:
    inbox = Inbox(1, 1.0)
    for _ in range(2):
        inbox.put_nowait(message())
    inbox.close()
    inbox.close()
    assert [len(batch.messages) async for batch in inbox.batches()] == [1, 1]


async def test_a_single_message_waits_for_no_more() -> None:
    inbox = Inbox(1000, 60.0)
    inbox.put_nowait(message())
    async with asyncio.timeout(5):
        async for batch in inbox.batches():
            assert (len(batch.messages), batch.behind) == (1, False)
            inbox.close()
