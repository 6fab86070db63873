from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rollwave.engine.ingest.batches import MAX_BATCH_BYTES, MessageQueue
from rollwave.mqtt.client import Incoming

NOT_A_MESSAGE: Any = None


def message(size: int = 10) -> Incoming:
    return Incoming("t", bytes(size - 1), retain=False, attempt=None, handle=NOT_A_MESSAGE)


async def filled(queue: MessageQueue, *sizes: int) -> MessageQueue:
    for size in sizes:
        await queue.put(message(size))
    queue.close()
    return queue


async def test_a_batch_closes_by_count_and_is_marked_full() -> None:
    queue = await filled(MessageQueue(3, 1.0), *[10] * 5)
    assert [(len(batch.messages), batch.behind) async for batch in queue.batches()] == [(3, True), (2, False)]


async def test_a_batch_closes_by_bytes() -> None:
    big = MAX_BATCH_BYTES // 2
    queue = await filled(MessageQueue(100, 1.0), big, big, 10, 10)
    assert [(len(batch.messages), batch.behind) async for batch in queue.batches()] == [(2, True), (2, False)]


@pytest.mark.parametrize(
    ("queue", "sizes"), [(MessageQueue(2, 1.0), [10] * 4), (MessageQueue(100, 1.0), [MAX_BATCH_BYTES] * 2)]
)
async def test_the_queue_is_full_at_two_batches_by_count_or_bytes(queue: MessageQueue, sizes: list[int]) -> None:
    for size in sizes:
        await queue.put(message(size))
    one_more = asyncio.create_task(queue.put(message()))
    await asyncio.sleep(0)
    assert not one_more.done()
    await anext(queue.batches())
    async with asyncio.timeout(5):
        await one_more


async def test_waiting_messages_can_be_read_after_closing() -> None:
    queue = await filled(MessageQueue(1, 1.0), 10, 10)
    queue.close()
    assert [len(batch.messages) async for batch in queue.batches()] == [1, 1]


async def test_closing_wakes_a_consumer_that_waits_for_a_batch() -> None:
    queue = MessageQueue(1, 1.0)
    waiting = asyncio.create_task(anext(queue.batches(), None))
    await asyncio.sleep(0)
    queue.close()
    async with asyncio.timeout(5):
        assert await waiting is None


async def test_a_single_message_does_not_wait_for_others() -> None:
    queue = MessageQueue(1000, 60.0)
    await queue.put(message())
    async with asyncio.timeout(5):
        async for batch in queue.batches():
            assert (len(batch.messages), batch.behind) == (1, False)
            queue.close()


async def test_a_batch_closes_after_its_maximum_wait_while_messages_keep_coming() -> None:
    queue = MessageQueue(1_000_000, 0.05)

    async def keep_coming() -> None:
        while True:
            await queue.put(message())
            await asyncio.sleep(0)

    coming = asyncio.create_task(keep_coming())
    async with asyncio.timeout(5):
        assert (await anext(queue.batches())).messages
    coming.cancel()
