"""The broker is spoken to in TLS where it speaks none, or the other way round: the hint names the other scheme."""

from __future__ import annotations

import pytest

from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.broker import Broker, Protocol
from rollwave.mqtt.client import Session
from tests.servers import Mosquitto
from tests.shipped import ShippedMosquitto
from tests.support import free_port


async def hint(broker: Broker) -> str:
    with pytest.raises(BrokerUnavailable) as refused:
        async with Session.connect(broker):
            pass
    return refused.value.hint


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_hint_for_a_wrong_url_scheme_names_the_other_scheme(
    shipped_mosquitto: ShippedMosquitto, mosquitto: Mosquitto, protocol: Protocol
) -> None:
    plaintext = shipped_mosquitto.url.replace("mqtts://", "mqtt://")
    assert "mqtts://" in await hint(Broker.from_url(plaintext, protocol=protocol))
    encrypted = mosquitto.url.replace("mqtt://", "mqtts://")
    assert "mqtt://" in await hint(Broker.from_url(encrypted, protocol=protocol))
    nobody = Broker.from_url(f"mqtts://127.0.0.1:{free_port()}", protocol=protocol)
    assert "mqtt://" not in await hint(nobody)
