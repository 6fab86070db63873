"""What the broker says it has dropped, where it says so: Mosquitto does, under ``$SYS``."""

from __future__ import annotations

import asyncio
from math import nan

from rollwave import metrics
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import DROPPED

_log = get_logger("listener")

ASK_AGAIN_SECONDS = 300.0
"""Seconds before a broker that refused, or went away, is asked again."""


async def watch(broker: Broker) -> None:
    """Keep the gauge until cancelled.

    Over a connection of its own: some brokers end one that asks for ``$SYS`` (rumqttd, or RabbitMQ's permissions).
    """
    while True:
        try:
            async with Session.connect(broker) as session:
                await session.subscribe_to_state(DROPPED)
                async for message in session.messages():
                    if message.payload.isdigit():
                        metrics.broker_dropped.set(int(message.payload))
        except BrokerUnavailable as error:
            _log.debug("ota_broker_does_not_say", error=str(error))
        finally:
            metrics.broker_dropped.set(nan)
        await asyncio.sleep(ASK_AGAIN_SECONDS)
