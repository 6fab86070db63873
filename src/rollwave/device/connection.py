"""A session that is opened again whenever it is lost."""

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

_STEADY = 10.0
"""Seconds after which a session counts as good, and the next wait starts small again."""

_ENDING = 10.0
"""Maximum number of seconds for the other parts of a session to end."""

_log = get_logger("wire")


async def keep_connected(
    broker: Broker,
    client_id: str,
    serve: Callable[[Session], Awaitable[None]],
    *,
    persistent: bool = False,
    manual_ack: bool = False,
) -> NoReturn:
    """Open a session, ``serve`` it until it is lost, wait, and again, until cancelled.

    ``serve`` ends, by return or with BrokerUnavailable, when the session is of no more use.
    """
    clock = asyncio.get_running_loop().time
    waits = delays()
    while True:
        opened = clock()
        try:
            async with Session.connect(broker, client_id, persistent=persistent, manual_ack=manual_ack) as session:
                await serve(session)
                reason = "another client uses this client id" if session.taken_over else "session ended"
        except (BrokerUnavailable, OSError) as error:  # a device outlives whatever happens to its connection
            reason = str(error) or type(error).__name__
        if clock() - opened > _STEADY:
            waits = delays()
        wait = next(waits)
        _log.warning("mqtt_disconnected", client_id=client_id, reason=reason, retry_in_seconds=round(wait, 2))
        await asyncio.sleep(wait)


async def together(*parts: Awaitable[None]) -> None:
    """Run the parts of one session until the first of them ends; the others end with it.

    Raises:
        BrokerUnavailable: a part did.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(*tasks, within=_ENDING)
        for task in tasks:
            failure_of(task)  # read: what ended first is raised
