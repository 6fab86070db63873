"""A cancellation always comes out of a session, whatever the MQTT library is doing at that moment."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest import broker_drops
from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.tasks import end

TRIALS, STEP = 250, 0.00002
"""Moments at which a call is cancelled: from its start to 5 ms after it, in which a session on loopback is made."""

PROMPTLY = 0.5


@pytest.fixture(autouse=True)
def no_socket_is_lost() -> Iterator[None]:
    """One that was lost is collected here, with a warning, and not in a later test."""
    yield
    gc.collect()


def delays() -> Iterator[float]:
    return (number * STEP for number in range(TRIALS))


async def lost(work: Coroutine[Any, Any, None] | asyncio.Task[None], delay: float) -> bool:
    """Cancel it after a while. True: it went on."""
    task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
    await asyncio.sleep(delay)
    if task.done():
        return False
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=PROMPTLY)
    if done and task.cancelled():
        return False
    await end(task, within=5, cancel_again=0.05)
    return True


async def nobody() -> Broker:
    """An address at which nothing listens."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return Broker.from_url(f"mqtt://127.0.0.1:{port}")


@pytest.mark.parametrize("reachable", [True, False], ids=["with a broker", "without"])
@pytest.mark.parametrize("what", ["connect", "watch"])
async def test_cancellation_is_not_lost_while_a_session_connects(
    broker: EmbeddedBroker, what: str, reachable: bool
) -> None:
    at = Broker.from_url(broker.url) if reachable else await nobody()

    async def connect() -> None:
        try:
            async with Session.connect(at):
                await asyncio.Event().wait()
        except BrokerUnavailable:
            await asyncio.Event().wait()

    went_on = [
        delay for delay in delays() if await lost(connect() if what == "connect" else broker_drops.watch(at), delay)
    ]
    assert went_on == []


async def _leave(broker: Broker, leaving: asyncio.Event) -> None:
    async with Session.connect(broker):
        leaving.set()
    await asyncio.Event().wait()


async def test_cancellation_is_not_lost_while_a_session_disconnects(broker: EmbeddedBroker) -> None:
    at = Broker.from_url(broker.url)
    went_on = []
    for delay in delays():
        leaving = asyncio.Event()
        task = asyncio.create_task(_leave(at, leaving))
        await leaving.wait()
        if await lost(task, delay):
            went_on.append(delay)
    assert went_on == []


async def test_cancellation_is_not_lost_while_a_session_subscribes(broker: EmbeddedBroker) -> None:
    async with Session.connect(Broker.from_url(broker.url)) as session:

        async def work() -> None:
            while True:
                await session.subscribe("some/topic")
                await session.unsubscribe("some/topic")

        assert [delay for delay in delays() if await lost(work(), delay)] == []


async def test_a_cancelled_session_is_closed_and_leaves_no_task(broker: EmbeddedBroker) -> None:
    before = asyncio.all_tasks()
    for delay in delays():
        await lost(broker_drops.watch(Broker.from_url(broker.url)), delay)
    deadline = time.monotonic() + 5
    while asyncio.all_tasks() - before and time.monotonic() < deadline:
        await asyncio.wait(asyncio.all_tasks() - before, timeout=0.5)
    assert asyncio.all_tasks() - before == set()
