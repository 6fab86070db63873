from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from rollwave.engine.ingest import batches
from rollwave.engine.ingest.batches import Batch, MessageQueue
from rollwave.mqtt.client import Incoming
from tests.support import eventually

NOT_A_MESSAGE: Any = None


class Commits:
    """Batches of one message each, in the order begun. A batch ends when its message is released."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.may_end: dict[str, asyncio.Event] = {name: asyncio.Event() for name in "abc"}
        self.fail = False

    async def commit(self, batch: Batch) -> None:
        [message] = batch.messages
        self.begun.append(message.topic)
        await self.may_end[message.topic].wait()
        self.ended.append(message.topic)
        if self.fail:
            raise LookupError(message.topic)


def message(topic: str) -> Incoming:
    return Incoming(topic, b"", retain=False, attempt=None, handle=NOT_A_MESSAGE)


async def filled(*topics: str) -> MessageQueue:
    queue = MessageQueue(1, 1.0)
    for topic in topics:
        await queue.put(message(topic))
    return queue


async def until_begun(commits: Commits, *topics: str) -> None:
    await eventually(lambda: commits.begun == list(topics), timeout=5)
    for _ in range(10):  # By now, every batch that may begin has begun.
        await asyncio.sleep(0)
    assert commits.begun == list(topics)


async def test_at_most_two_batches_are_committed_at_once() -> None:
    commits, queue = Commits(), await filled("a", "b")
    running = asyncio.create_task(batches.commit_in_order(queue, commits.commit, asyncio.Event()))
    await until_begun(commits, "a", "b")
    await queue.put(message("c"))
    await until_begun(commits, "a", "b")
    commits.may_end["a"].set()
    await until_begun(commits, "a", "b", "c")
    for event in commits.may_end.values():
        event.set()
    queue.close()
    async with asyncio.timeout(5):
        await running
    assert sorted(commits.ended) == ["a", "b", "c"]


@pytest.mark.parametrize("fail", [False, True], ids=["which goes well", "which fails"])
@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_running_commits_are_finished_on_a_stop(how: str, *, fail: bool) -> None:
    commits, queue, stop = Commits(), await filled("a", "b"), asyncio.Event()
    commits.fail = fail
    running = asyncio.create_task(batches.commit_in_order(queue, commits.commit, stop))
    await until_begun(commits, "a", "b")
    await queue.put(message("c"))
    running.cancel() if how == "cancelled" else stop.set()
    await asyncio.sleep(0)
    for event in commits.may_end.values():
        event.set()
    async with asyncio.timeout(5):
        await asyncio.wait({running})
    assert (commits.begun, commits.ended) == (["a", "b"], ["a", "b"])
    assert running.cancelled() == (how == "cancelled")
    if how == "stopped":
        assert isinstance(running.exception(), LookupError) == fail


async def test_a_commit_that_does_not_end_in_time_is_left_unacknowledged() -> None:
    commits, queue, stop = Commits(), await filled("a"), asyncio.Event()
    running = asyncio.create_task(batches.commit_in_order(queue, commits.commit, stop, drain_seconds=0.01))
    await until_begun(commits, "a")
    stop.set()
    queue.close()
    async with asyncio.timeout(5):
        await running
    assert commits.ended == []


async def test_an_error_ends_the_batches_even_without_a_new_message() -> None:
    async def fail(_batch: Batch) -> None:
        raise LookupError

    queue = await filled("a")
    async with asyncio.timeout(5):
        with pytest.raises(LookupError):
            await batches.commit_in_order(queue, fail, asyncio.Event())


async def test_when_two_commits_fail_both_errors_are_retrieved() -> None:
    unread: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unread.append(context))
    commits, queue = Commits(), await filled("a", "b")
    commits.fail = True
    running = asyncio.create_task(batches.commit_in_order(queue, commits.commit, asyncio.Event()))
    await until_begun(commits, "a", "b")
    for event in commits.may_end.values():
        event.set()
    async with asyncio.timeout(5):
        await asyncio.wait({running})
    assert str(running.exception()) == "a"
    del running
    gc.collect()
    assert unread == []


async def test_a_cancellation_after_an_error_lets_running_commits_finish() -> None:
    unread: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unread.append(context))
    commits, queue = Commits(), await filled("a", "b")
    commits.fail = True
    running = asyncio.create_task(batches.commit_in_order(queue, commits.commit, asyncio.Event()))
    await until_begun(commits, "a", "b")
    commits.may_end["a"].set()
    await eventually(lambda: commits.ended == ["a"], timeout=5)
    for _ in range(10):  # It waits for the other batch now.
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    commits.may_end["b"].set()
    async with asyncio.timeout(5):
        await asyncio.wait({running})
    assert running.cancelled()
    assert commits.ended == ["a", "b"]
    del running
    gc.collect()
    assert unread == []
