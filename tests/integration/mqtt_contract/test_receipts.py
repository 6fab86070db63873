"""A receipt says whether the broker took a message, refused it, or never answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import Kind, RunningBroker, on, on_mqtt_5
from tests.integration.mqtt_contract.helpers import ended, publish, received, settled
from tests.proxy import PUBACK, PUBLISH, Do, Packet, Proxy, publishing, to_client
from tests.servers import Mosquitto
from tests.support import eventually


async def test_a_receipt_says_that_the_broker_took_the_message(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker) as session:
        receipt = await settled(await session.publish(unique_name, b"nobody subscribes to this"))
        assert (receipt.answered, receipt.taken, receipt.refused) == (True, True, False)
        await receipt.acknowledged()
        await receipt.wait()


async def test_messages_are_published_at_qos_1(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    qos: list[int] = []

    def note(packet: Packet) -> None:
        if packet.kind == PUBLISH and packet.to_broker:
            qos.append(packet.raw[0] >> 1 & 3)

    broker_proxy.rules.append(note)
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        await publish(session, unique_name, [b"a", b"b"])
    assert qos == [1, 1]


async def test_a_receipt_says_that_there_is_no_answer_yet(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    broker_proxy.rules.append(to_client(PUBACK, Do.HOLD))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        receipt = await session.publish(unique_name, b"")
        await eventually(lambda: broker_proxy.published == [unique_name], what="published")
        assert (receipt.answered, receipt.taken, receipt.refused) == (False, False, False)
        broker_proxy.rules.clear()
        await broker_proxy.release()
        assert (await settled(receipt)).taken


async def test_a_wait_for_the_last_answer_is_a_wait_for_all(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    """Brokers answer in order, so the last answer comes after all others."""
    async with adapter.connect(shared_broker.broker) as session:
        receipts = [await session.publish(unique_name, b"%d" % number) for number in range(500)]
        await settled(receipts[-1])
        assert all(receipt.answered and receipt.taken for receipt in receipts)


@on(lambda able: able.refuses_publishes)
async def test_a_message_refused_by_the_access_rules_leaves_the_session_open(
    adapter: Adapter, kind: Kind, tmp_path: Path
) -> None:
    (tmp_path / "acl").write_text("topic readwrite allowed/#\n")
    with kind.start(tmp_path) as shared_broker:
        server = shared_broker.server
        assert isinstance(server, Mosquitto)
        server.stop()
        with (tmp_path / "mosquitto.conf").open("a") as config:
            config.write(f"acl_file {tmp_path}/acl\n")
        server.start()
        async with adapter.connect(shared_broker.broker) as session:
            receipt = await settled(await session.publish("forbidden", b""))
            assert (receipt.answered, receipt.taken, receipt.refused) == (True, False, True)
            assert (await settled(await session.publish("allowed/1", b""))).taken, "the session stays open"


@on_mqtt_5()
@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x90, 0x97, 0x99], ids=hex)
async def test_every_reason_code_of_a_refused_message_counts_as_a_refusal(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str, reason: int
) -> None:
    broker_proxy.reason = reason
    broker_proxy.rules.append(publishing(lambda topic: topic.endswith("/no"), Do.REFUSE))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        receipt = await settled(await session.publish(f"{unique_name}/no", b""))
        assert (receipt.answered, receipt.taken, receipt.refused) == (True, False, True)
        with pytest.raises(BrokerUnavailable, match=str(reason)):
            await receipt.acknowledged()
        assert (await settled(await session.publish(f"{unique_name}/yes", b""))).taken, "the session stays open"


@pytest.mark.parametrize("ending", [Do.CLOSE, Do.RESET], ids=lambda ending: ending.name)
async def test_a_message_is_neither_taken_nor_refused_if_the_connection_ends_first(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str, ending: Do
) -> None:
    """The broker may have received the message, so its receipt says neither taken nor refused."""
    broker_proxy.rules.append(to_client(PUBACK, Do.DROP))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        receipts = [await session.publish(unique_name, b"") for _ in range(3)]
        await eventually(lambda: len(broker_proxy.published) == 3, what="published")
        broker_proxy.cut(ending)
        for receipt in receipts:
            await settled(receipt)
            assert (receipt.answered, receipt.taken, receipt.refused) == (True, False, False)
            with pytest.raises(BrokerUnavailable):
                await receipt.acknowledged()
        await ended(session)
        assert not session.connected
        with pytest.raises(BrokerUnavailable):
            await session.publish(unique_name, b"")


async def test_receipts_that_were_answered_before_the_end_stay_taken(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    broker_proxy.rules.append(publishing(lambda topic: topic.endswith("/end"), Do.CLOSE))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        receipts = [await session.publish(f"{unique_name}/{part}", b"") for part in ("first", "second", "end", "after")]
        for receipt in receipts:
            await settled(receipt)
        assert [receipt.taken for receipt in receipts] == [True, True, False, False]


async def test_messages_arrive_in_the_order_published(
    adapter: Adapter, shared_broker: RunningBroker, unique_name: str
) -> None:
    async with adapter.connect(shared_broker.broker) as subscriber, adapter.connect(shared_broker.broker) as session:
        await subscriber.subscribe(f"{unique_name}/#")
        payloads = [b"%d" % number for number in range(1000)]
        await publish(session, f"{unique_name}/1", payloads)
        assert [message.payload for message in await received(subscriber.messages(), 1000)] == payloads
