"""Sessions: whether the broker remembers them, how they end, and that they never come back by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import Kind, Served, on_mqtt_5
from tests.integration.mqtt_contract.helpers import (
    LAST,
    ended,
    publish,
    received,
    received_until_last,
    settled,
)
from tests.proxy import Do, Proxy, publishing
from tests.support import eventually


async def test_session_present_says_whether_the_broker_remembers_the_client_id(
    adapter: Adapter, served: Served, name: str
) -> None:
    found = []
    for persistent in (True, True, False, True):
        async with adapter.connect(served.broker, name, persistent=persistent) as session:
            found.append(session.session_present)
    assert found == [False, True, False, False], "a session that is not persistent ends what was remembered"
    async with adapter.connect(served.broker, f"{name}-other", persistent=True) as session:
        assert not session.session_present


async def test_session_present_is_false_if_a_restarted_broker_has_forgotten(
    adapter: Adapter, kind: Kind, name: str, tmp_path: Path
) -> None:
    with kind.start(tmp_path) as served:
        async with adapter.connect(served.broker, name, persistent=True) as session:
            await session.subscribe(name)
        served.server.stop()
        served.server.start()
        async with adapter.connect(served.broker, name, persistent=True) as session:
            assert session.session_present is kind.abilities.remembers_over_restart


async def test_messages_wait_for_a_client_that_is_away(adapter: Adapter, served: Served, name: str) -> None:
    async with adapter.connect(served.broker, name, persistent=True) as session:
        await session.subscribe(f"{name}/#")
    payloads = [b"%d" % number for number in range(100)]
    async with adapter.connect(served.broker) as publisher:
        await publish(publisher, f"{name}/1", payloads)
    async with adapter.connect(served.broker, name, persistent=True) as session:
        again = await received(session.messages(), len(payloads))
        assert [message.payload for message in again] == payloads


async def test_nothing_arrives_for_an_ended_subscription(adapter: Adapter, served: Served, name: str) -> None:
    async with adapter.connect(served.broker, name, persistent=True) as session:
        await session.subscribe(f"{name}/old", f"{name}/new")
        await session.unsubscribe(f"{name}/old")
        await publish(session, f"{name}/old", [b"nobody hears this"])
        await publish(session, f"{name}/new", [LAST])
        assert await received_until_last(session.messages()) == []


async def test_another_client_takes_the_session_over(adapter: Adapter, served: Served, name: str) -> None:
    async with adapter.connect(served.broker, name, persistent=True) as first:
        await first.subscribe(name)
        async with adapter.connect(served.broker, name, persistent=True) as second:
            await ended(first)
            assert not first.connected
            assert first.taken_over is served.abilities.names_takeover
            assert (second.session_present, second.connected, second.taken_over) == (True, True, False)
            with pytest.raises(BrokerUnavailable):
                await first.publish(name, b"")
            await publish(second, name, [b"to the second"])
            assert (await received(second.messages(), 1))[0].payload == b"to the second"


@on_mqtt_5()
@pytest.mark.parametrize(("reason", "taken_over"), [(0x8E, True), (0x87, False), (0x8B, False)], ids=str)
async def test_a_takeover_is_told_from_other_reasons_for_a_disconnect(
    adapter: Adapter, served: Served, between: Proxy, name: str, reason: int, taken_over: bool
) -> None:
    between.reason = reason
    between.rules.append(publishing(lambda _: True, Do.DISCONNECT))
    async with adapter.connect(served.through(between.url)) as session:
        receipt = await session.publish(name, b"")
        await ended(session)
        assert session.taken_over is taken_over
        assert not (await settled(receipt)).taken


async def test_a_lost_session_is_not_opened_again(adapter: Adapter, served: Served, between: Proxy, name: str) -> None:
    """Whoever holds it opens another, and so notices that the broker may have forgotten it."""
    async with adapter.connect(served.through(between.url), name, persistent=True) as session:
        await session.subscribe(name)
        between.cut()
        await ended(session)
        for call in (session.publish(name, b""), session.subscribe(name), session.unsubscribe(name)):
            with pytest.raises(BrokerUnavailable):
                await call
        assert await ended(session) == []
        assert (session.connected, between.connections) == (False, 1)


async def test_what_had_been_received_can_be_taken_after_the_end(
    adapter: Adapter, served: Served, between: Proxy, name: str
) -> None:
    async with adapter.connect(served.through(between.url)) as session:
        await session.subscribe(name)
        await publish(session, name, [b"a", b"b"])
        messages = session.messages()
        assert (await received(messages, 1))[0].payload == b"a"
        between.cut()
        await eventually(lambda: not session.connected, what="lost")
        async with asyncio.timeout(15):
            rest = [message.payload async for message in messages]
        assert rest in ([b"b"], []), "nothing but what came before the end"


async def test_leaving_a_session_settles_every_receipt(adapter: Adapter, served: Served, name: str) -> None:
    """What still waits for the broker may be lost with the session, and its receipt says so."""
    async with adapter.connect(served.broker) as subscriber:
        await subscriber.subscribe(name)
        async with adapter.connect(served.broker) as session:
            payloads = [b"%d" % number for number in range(100)]
            receipts = [await session.publish(name, payload) for payload in payloads]
        for receipt in receipts:
            await settled(receipt)
        async with adapter.connect(served.broker) as session:
            await publish(session, name, [LAST])
        arrived = [message.payload for message in await received_until_last(subscriber.messages())]
        assert arrived == payloads[: len(arrived)]
        assert len(arrived) >= sum(receipt.taken for receipt in receipts)


@contextmanager
def frozen(served: Served) -> Iterator[None]:
    """The broker does nothing during the block, and its connections stay open."""
    assert served.server.pid
    os.kill(served.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(served.server.pid, signal.SIGCONT)


async def test_abort_sends_nothing_that_still_waits(adapter: Adapter, kind: Kind, name: str, tmp_path: Path) -> None:
    """While the broker is frozen, the session's queue fills. What is in it at the time of the abort is never sent."""
    with kind.start(tmp_path) as served:
        async with adapter.connect(served.broker) as session, adapter.connect(served.broker) as subscriber:
            await subscriber.subscribe(f"{name}/#")
            receipts = []
            with frozen(served):
                with suppress(TimeoutError):
                    while True:
                        receipt = await asyncio.wait_for(session.publish(f"{name}/1", b"x" * 100_000), 0.5)
                        receipts.append(receipt)
                assert len(receipts) > 40, "its queues are full"
                session.abort()
                for receipt in receipts:
                    await settled(receipt)
                assert not session.connected
            async with adapter.connect(served.broker) as publisher:
                await publish(publisher, f"{name}/2", [LAST])
            arrived = await received_until_last(subscriber.messages())
            assert len(arrived) < len(receipts) - 5
            assert sum(receipt.taken for receipt in receipts) <= len(arrived)
