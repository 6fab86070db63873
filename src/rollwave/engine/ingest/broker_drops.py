"""Reads the broker's count of dropped messages, if it has one: Mosquitto publishes it under ``$SYS``."""

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
"""Seconds before the next try after the broker refused or became unavailable."""


async def watch(broker: Broker) -> None:
    """Update the gauge until cancelled.

    Uses a separate connection: some brokers end a connection that subscribes to ``$SYS`` (rumqttd; RabbitMQ, depending
    on permissions).
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
