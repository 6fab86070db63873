"""Keeps an MQTT session open: reconnects whenever it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from rollwave.device.backoff import delays
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.tasks import end, failure_of

_STABLE_SECONDS = 10.0
"""Length of a session, in seconds, after which the delay before the next one starts at its minimum again."""

_CANCEL_TIMEOUT_SECONDS = 10.0
"""Maximum time for the other parts of a session to end, in seconds."""

_log = get_logger("wire")


async def keep_connected(
    broker: Broker,
    client_id: str,
    serve: Callable[[Session], Awaitable[None]],
    *,
    persistent: bool = False,
    manual_ack: bool = False,
) -> NoReturn:
    """Open a session and ``serve`` it until it is lost; then wait, and open the next one. Runs until cancelled.

    ``serve`` returns, or raises BrokerUnavailable, when the session can no longer be used.
    """
    clock = asyncio.get_running_loop().time
    waits = delays()
    while True:
        opened = clock()
        try:
            async with Session.connect(broker, client_id, persistent=persistent, manual_ack=manual_ack) as session:
                await serve(session)
                reason = "another client uses this client id" if session.taken_over else "session ended"
        except (BrokerUnavailable, OSError) as error:  # no error of the connection may end the device
            reason = str(error) or type(error).__name__
        if clock() - opened > _STABLE_SECONDS:
            waits = delays()
        wait = next(waits)
        _log.warning("mqtt_disconnected", client_id=client_id, reason=reason, retry_in_seconds=round(wait, 2))
        await asyncio.sleep(wait)


async def run_until_first(*parts: Awaitable[None]) -> None:
    """Run the parts of one session until the first of them ends; then cancel the others.

    Raises:
        BrokerUnavailable: the part that ended first raised it.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(*tasks, within=_CANCEL_TIMEOUT_SECONDS)
        for task in tasks:
            failure_of(task)  # marks the exception as retrieved; only that of the first part is raised
