"""The broker refuses a session or a subscription: the error message gives the reason, and its hint the remedy."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker, Protocol
from tests.integration.mqtt_contract.adapters import Adapter
from tests.integration.mqtt_contract.brokers import KINDS, PASSWORD, USER, Kind, RunningBroker, on
from tests.proxy import CONNACK, CONNECT, Do, Packet, Proxy, subscribing, to_client
from tests.servers import Mosquitto
from tests.shipped import ShippedMosquitto
from tests.support import free_port

LOGIN_HINT = "Check MQTT_USERNAME, MQTT_PASSWORD or the client certificate"


async def refusal(adapter: Adapter, broker: Broker, client_id: str = "") -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as refused:
        async with asyncio.timeout(15), adapter.connect(broker, client_id, persistent=True, timeout=5):
            pass
    assert broker.address in str(refused.value)
    return refused.value


@pytest.mark.parametrize("login", [(USER, "wrong"), ("stranger", PASSWORD), (None, None)], ids=str)
async def test_an_unknown_login_is_refused_with_a_hint(
    adapter: Adapter, kind: Kind, tmp_path: Path, login: tuple[str | None, str | None]
) -> None:
    with kind.start(tmp_path, login=True) as shared_broker:
        async with adapter.connect(replace(shared_broker.broker, username=USER, password=PASSWORD)):
            pass
        error = await refusal(adapter, replace(shared_broker.broker, username=login[0], password=login[1]))
    assert kind.abilities.bad_login in str(error)
    assert (LOGIN_HINT in error.hint) is ("reason_code" in kind.abilities.bad_login), (
        "where the broker gives the reason"
    )


_MQTT_5_CODES = {0x80: False, 0x85: False, 0x86: True, 0x87: True, 0x88: False, 0x89: False, 0x8A: False, 0x97: False}
_MQTT_3_CODES = {1: False, 2: False, 3: False, 4: True, 5: True}
CODES = [
    pytest.param(kind, code, login, id=f"{kind}-{code:#x}")
    for kind in KINDS
    for code, login in (_MQTT_5_CODES if kind.protocol == "5" else _MQTT_3_CODES).items()
]


@pytest.mark.parametrize(("kind", "code", "is_login"), CODES, indirect=["kind"])
async def test_the_error_names_every_reason_code_of_a_refused_connection(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, code: int, is_login: bool
) -> None:
    def refuse(packet: Packet) -> Do | None:
        return Do.REFUSE if packet.kind == CONNECT else None

    broker_proxy.reason = code
    broker_proxy.rules.append(refuse)
    error = await refusal(adapter, shared_broker.through(broker_proxy.url))
    assert f"reason_code={code}" in str(error)
    assert (LOGIN_HINT in error.hint) is is_login


@on(lambda able: bool(able.bad_client_id))
async def test_a_client_id_that_the_broker_refuses_is_a_broker_error(
    adapter: Adapter, shared_broker: RunningBroker
) -> None:
    await refusal(adapter, shared_broker.broker, shared_broker.abilities.bad_client_id)


async def test_a_client_id_that_mqtt_does_not_allow_is_a_broker_error(
    adapter: Adapter, shared_broker: RunningBroker
) -> None:
    await refusal(adapter, shared_broker.broker, "a\x00b")


async def test_connecting_to_a_silent_broker_ends_after_the_timeout(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy
) -> None:
    broker_proxy.rules.append(to_client(CONNACK, Do.DROP))
    with pytest.raises(BrokerUnavailable):
        async with asyncio.timeout(15), adapter.connect(shared_broker.through(broker_proxy.url), timeout=0.3):
            pass


async def test_a_closed_port_is_a_broker_error_with_a_hint(adapter: Adapter, kind: Kind) -> None:
    error = await refusal(adapter, Broker.from_url(f"mqtt://127.0.0.1:{free_port()}", protocol=kind.protocol))
    assert "that the broker runs" in error.hint


async def test_an_invalid_host_name_is_a_broker_error(adapter: Adapter) -> None:
    with pytest.raises(BrokerUnavailable, match="no MQTT session"):
        async with adapter.connect(Broker(host="a" * 70 + ".invalid", port=1883)):
            pass


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_hint_for_a_wrong_url_scheme_names_the_other_scheme(
    adapter: Adapter, shipped_mosquitto: ShippedMosquitto, mosquitto: Mosquitto, protocol: Protocol
) -> None:
    """TLS to a broker without TLS, and the other way round."""
    plaintext = shipped_mosquitto.url.replace("mqtts://", "mqtt://")
    assert "mqtts://" in (await refusal(adapter, Broker.from_url(plaintext, protocol=protocol))).hint
    encrypted = mosquitto.url.replace("mqtt://", "mqtts://")
    assert "mqtt://" in (await refusal(adapter, Broker.from_url(encrypted, protocol=protocol))).hint
    nobody = Broker.from_url(f"mqtts://127.0.0.1:{free_port()}", protocol=protocol)
    assert "mqtt://" not in (await refusal(adapter, nobody)).hint


async def test_a_refused_subscription_is_a_broker_error_that_names_the_filters(
    adapter: Adapter, shared_broker: RunningBroker, broker_proxy: Proxy, unique_name: str
) -> None:
    broker_proxy.rules.append(subscribing(lambda topic_filter: topic_filter.endswith("/no"), Do.REFUSE))
    async with adapter.connect(shared_broker.through(broker_proxy.url)) as session:
        for subscribe in (session.subscribe, session.subscribe_to_state):
            with pytest.raises(BrokerUnavailable, match=f"{unique_name}/no") as refused:
                await subscribe(f"{unique_name}/yes", f"{unique_name}/no")
            assert "ACL" in refused.value.hint
        await session.subscribe(f"{unique_name}/yes")
        assert session.connected
