from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rollwave.engine.ingest.batches import MAX_BATCH_BYTES, Inbox
from rollwave.mqtt.client import Incoming

NOT_A_MESSAGE: Any = None


def message(size: int = 10) -> Incoming:
    return Incoming("t", bytes(size - 1), retain=False, attempt=None, handle=NOT_A_MESSAGE)


async def filled(inbox: Inbox, *sizes: int) -> Inbox:
    for size in sizes:
        await inbox.put(message(size))
    inbox.close()
    return inbox


async def test_a_batch_closes_by_count_and_is_marked_full() -> None:
    inbox = await filled(Inbox(3, 1.0), *[10] * 5)
    assert [(len(batch.messages), batch.behind) async for batch in inbox.batches()] == [(3, True), (2, False)]


async def test_a_batch_closes_by_bytes() -> None:
    big = MAX_BATCH_BYTES // 2
    inbox = await filled(Inbox(100, 1.0), big, big, 10, 10)
    assert [(len(batch.messages), batch.behind) async for batch in inbox.batches()] == [(2, True), (2, False)]


@pytest.mark.parametrize(("inbox", "sizes"), [(Inbox(2, 1.0), [10] * 4), (Inbox(100, 1.0), [MAX_BATCH_BYTES] * 2)])
async def test_the_queue_is_full_at_two_batches_by_count_or_bytes(inbox: Inbox, sizes: list[int]) -> None:
    for size in sizes:
        await inbox.put(message(size))
    one_more = asyncio.create_task(inbox.put(message()))
    await asyncio.sleep(0)
    assert not one_more.done()
    await anext(inbox.batches())
    async with asyncio.timeout(5):
        await one_more


async def test_waiting_messages_are_handed_out_after_closing() -> None:
    inbox = await filled(Inbox(1, 1.0), 10, 10)
    inbox.close()
    assert [len(batch.messages) async for batch in inbox.batches()] == [1, 1]


async def test_closing_wakes_a_consumer_that_waits_for_a_batch() -> None:
    inbox = Inbox(1, 1.0)
    waiting = asyncio.create_task(anext(inbox.batches(), None))
    await asyncio.sleep(0)
    inbox.close()
    async with asyncio.timeout(5):
        assert await waiting is None


async def test_a_single_message_does_not_wait_for_others() -> None:
    inbox = Inbox(1000, 60.0)
    await inbox.put(message())
    async with asyncio.timeout(5):
        async for batch in inbox.batches():
            assert (len(batch.messages), batch.behind) == (1, False)
            inbox.close()


async def test_a_batch_closes_after_its_maximum_wait_while_messages_keep_coming() -> None:
    inbox = Inbox(1_000_000, 0.05)

    async def keep_coming() -> None:
        while True:
            await inbox.put(message())
            await asyncio.sleep(0)

    coming = asyncio.create_task(keep_coming())
    async with asyncio.timeout(5):
        assert (await anext(inbox.batches())).messages
    coming.cancel()
