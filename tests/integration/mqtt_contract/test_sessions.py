"""Sessions: whether the broker remembers them, how they end, and that they are never opened again by themselves."""

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
from tests.integration.mqtt_contract.brokers import Kind, RunningBroker, on_mqtt_5
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
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    found = []
    for persistent in (True, True, False, True):
        async with adapter.connect(shared_broker.broker, unique_name, persistent=persistent) as session:
            found.append(session.session_present)
    assert found == [False, True, False, False], "a session that is not persistent ends the remembered one"
    async with adapter.connect(shared_broker.broker, f"{unique_name}-other", persistent=True) as session:
        assert not session.session_present


async def test_session_present_is_false_if_a_restarted_broker_has_forgotten(
    adapter: Adapter, kind: Kind, unique_name: str, tmp_path: Path
) -> None:
    with kind.start(tmp_path) as shared_broker:
        async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
            await session.subscribe(unique_name)
        shared_broker.server.stop()
        shared_broker.server.start()
        async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
            assert session.session_present is kind.abilities.remembers_over_restart


async def test_messages_wait_for_a_disconnected_client(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
        await session.subscribe(f"{unique_name}/#")
    payloads = [b"%d" % number for number in range(100)]
    async with adapter.connect(shared_broker.broker) as publisher:
        await publish(publisher, f"{unique_name}/1", payloads)
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
        again = await received(session.messages(), len(payloads))
        assert [message.payload for message in again] == payloads


async def test_nothing_arrives_for_an_ended_subscription(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as session:
        await session.subscribe(f"{unique_name}/old", f"{unique_name}/new")
        await session.unsubscribe(f"{unique_name}/old")
        await publish(session, f"{unique_name}/old", [b"nobody hears this"])
        await publish(session, f"{unique_name}/new", [LAST])
        assert await received_until_last(session.messages()) == []


async def test_another_client_takes_the_session_over(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as first:
        await first.subscribe(unique_name)
        async with adapter.connect(shared_broker.broker, unique_name, persistent=True) as second:
            await ended(first)
            assert not first.connected
            assert first.taken_over is shared_broker.abilities.names_takeover
            assert (second.session_present, second.connected, second.taken_over) == (True, True, False)
            with pytest.raises(BrokerUnavailable):
                await first.publish(unique_name, b"")
            await publish(second, unique_name, [b"to the second"])
            assert (await received(second.messages(), 1))[0].payload == b"to the second"


@on_mqtt_5()
@pytest.mark.parametrize(("reason", "taken_over"), [(0x8E, True), (0x87, False), (0x8B, False)], ids=str)
async def test_a_takeover_is_distinguished_from_other_reasons_for_a_disconnect(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str, reason: int, taken_over: bool
) -> None:
    broker_proxy.reason = reason
    broker_proxy.rules.append(publishing(lambda _: True, Do.DISCONNECT))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        receipt = await session.publish(unique_name, b"")
        await ended(session)
        assert session.taken_over is taken_over
        assert not (await settled(receipt)).taken


async def test_a_lost_session_is_not_opened_again(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    """The caller opens the next session, and so learns whether the broker has forgotten the old one."""
    async with adapter.connect(shared_broker.through(broker_proxy.url), unique_name, persistent=True) as session:
        await session.subscribe(unique_name)
        broker_proxy.cut()
        await ended(session)
        for call in (
            session.publish(unique_name, b""),
            session.subscribe(unique_name),
            session.unsubscribe(unique_name),
        ):
            with pytest.raises(BrokerUnavailable):
                await call
        assert await ended(session) == []
        assert (session.connected, broker_proxy.connections) == (False, 1)


async def test_messages_received_before_the_end_can_be_read_after_it(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        await session.subscribe(unique_name)
        await publish(session, unique_name, [b"a", b"b"])
        messages = session.messages()
        assert (await received(messages, 1))[0].payload == b"a"
        broker_proxy.cut()
        await eventually(lambda: not session.connected, what="lost")
        async with asyncio.timeout(15):
            rest = [message.payload async for message in messages]
        assert rest in ([b"b"], []), "only messages received before the end"


async def test_leaving_a_session_settles_every_receipt(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    """Messages without an answer may be lost with the session. Their receipts say that there is no answer."""
    async with adapter.connect(shared_broker.broker) as subscriber:
        await subscriber.subscribe(unique_name)
        async with adapter.connect(shared_broker.broker) as session:
            payloads = [b"%d" % number for number in range(100)]
            receipts = [await session.publish(unique_name, payload) for payload in payloads]
        for receipt in receipts:
            await settled(receipt)
        async with adapter.connect(shared_broker.broker) as session:
            await publish(session, unique_name, [LAST])
        arrived = [message.payload for message in await received_until_last(subscriber.messages())]
        assert arrived == payloads[: len(arrived)]
        assert len(arrived) >= sum(receipt.taken for receipt in receipts)


@contextmanager
def frozen(shared_broker: RunningBroker) -> Iterator[None]:
    """Freeze the broker during the block. Its connections stay open."""
    assert shared_broker.server.pid
    os.kill(shared_broker.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(shared_broker.server.pid, signal.SIGCONT)


async def test_abort_sends_no_queued_message(adapter: Adapter, kind: Kind, unique_name: str, tmp_path: Path) -> None:
    """While the broker is frozen, the session's queue fills. Messages in it at the time of the abort are never sent."""
    with kind.start(tmp_path) as shared_broker:
        async with (
            adapter.connect(shared_broker.broker) as session,
            adapter.connect(shared_broker.broker) as subscriber,
        ):
            await subscriber.subscribe(f"{unique_name}/#")
            receipts = []
            with frozen(shared_broker):
                with suppress(TimeoutError):
                    while True:
                        receipt = await asyncio.wait_for(session.publish(f"{unique_name}/1", b"x" * 100_000), 0.5)
                        receipts.append(receipt)
                assert len(receipts) > 40, "the session's queues are full"
                session.abort()
                for receipt in receipts:
                    await settled(receipt)
                assert not session.connected
            async with adapter.connect(shared_broker.broker) as publisher:
                await publish(publisher, f"{unique_name}/2", [LAST])
            arrived = await received_until_last(subscriber.messages())
            assert len(arrived) < len(receipts) - 5
            assert sum(receipt.taken for receipt in receipts) <= len(arrived)
