"""A cancelled call always raises ``CancelledError``, at any moment."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker
from rollwave.tasks import end
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import RunningBroker
from tests.support import eventually

TRIALS, STEP = 250, 0.00002
"""Delays after which a call is cancelled: 0 to 5 ms, within which a session on loopback is opened."""

PROMPT_SECONDS = 5.0
"""A call ends so soon after its cancellation, also on a busy machine. One that lost it would never end."""


@pytest.fixture(autouse=True)
def no_socket_is_lost() -> Iterator[None]:
    """Collect garbage here, so that a lost socket raises its warning in this test and not in a later one."""
    yield
    gc.collect()


def delays() -> Iterator[float]:
    return (number * STEP for number in range(TRIALS))


async def lost(work: Coroutine[Any, Any, None] | asyncio.Task[None], delay: float) -> bool:
    """Cancel ``work`` after ``delay`` seconds. Returns whether the cancellation was lost and the work continued."""
    task = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
    await asyncio.sleep(delay)
    if task.done():
        return False
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=PROMPT_SECONDS)
    if done and task.cancelled():
        return False
    await end(task, within=5, cancel_again=0.05)
    return True


async def nobody() -> Broker:
    """An address at which no server listens."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return Broker.from_url(f"mqtt://127.0.0.1:{port}")


async def connect_and_wait(adapter: Adapter, broker: Broker) -> None:
    with suppress(BrokerUnavailable):
        async with adapter.connect(broker):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


@pytest.mark.parametrize("reachable", [True, False], ids=["with a broker", "without"])
async def test_cancellation_is_not_lost_while_a_session_connects(
    adapter: Adapter, shared_broker: RunningBroker, reachable: bool
) -> None:
    at = shared_broker.broker if reachable else await nobody()
    assert [delay for delay in delays() if await lost(connect_and_wait(adapter, at), delay)] == []


async def leave(adapter: Adapter, broker: Broker, leaving: asyncio.Event) -> None:
    async with adapter.connect(broker):
        leaving.set()
    await asyncio.Event().wait()


async def test_cancellation_is_not_lost_while_a_session_disconnects(
    adapter: Adapter, shared_broker: RunningBroker
) -> None:
    went_on = []
    for delay in delays():
        leaving = asyncio.Event()
        task = asyncio.create_task(leave(adapter, shared_broker.broker, leaving))
        await leaving.wait()
        if await lost(task, delay):
            went_on.append(delay)
    assert went_on == []


async def test_cancellation_is_not_lost_while_a_session_subscribes(
    adapter: Adapter, shared_broker: RunningBroker
) -> None:
    async with adapter.connect(shared_broker.broker) as session:

        async def work() -> None:
            while True:
                await session.subscribe("some/topic")
                await session.unsubscribe("some/topic")

        assert [delay for delay in delays() if await lost(work(), delay)] == []


async def test_a_cancelled_session_is_closed_and_leaves_no_task(adapter: Adapter, shared_broker: RunningBroker) -> None:
    before = asyncio.all_tasks()
    for delay in delays():
        await lost(connect_and_wait(adapter, shared_broker.broker), delay)
    await eventually(lambda: asyncio.all_tasks() == before, timeout=5, what="no task is left")
