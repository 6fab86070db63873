"""What every worker process runs: ticks, and a listener for each slot. Any number of workers may run at once."""

from __future__ import annotations

import asyncio

from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.engine.rounds import Rounds
from rollwave.engine.supervisor import Supervisor
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.watched import watched

_log = get_logger("worker")

BROKER_CHECK = 3.0
"""Seconds in which the broker should let us in, when somebody asks whether this worker is ready."""

LISTEN_FIRST = 5.0
"""Seconds that the first tick waits for the listeners."""


class Worker:
    """Adds its tasks to a supervisor, and tells whether it can do its work."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool = watched(pool)
        self._settings = settings
        self._publisher = Publisher(Broker.from_settings(settings))
        precedence = self._publisher.precedence
        self._listeners = [
            Listener(pool, settings, slot=slot, precedence=precedence) for slot in range(settings.listener_slots)
        ]

    def join(self, supervisor: Supervisor) -> None:
        """Have the supervisor run this worker."""
        supervisor.add("dispatcher", self._dispatch)
        for number, listener in enumerate(self._listeners):
            supervisor.add(f"listener {number}", listener.run)

    async def readiness(self) -> dict[str, str]:
        """``broker`` and ``reports``: ``ok``, or what is wrong. To stand by for another worker's slot is ok."""
        heard = all(each.presence.subscribed or each.presence.standby for each in self._listeners)
        checks = {"broker": await self._broker(), "reports": "ok"}
        if not heard:
            away_for = max((each.away_for or 0.0 for each in self._listeners), default=0.0)
            checks["reports"] = f"cannot come in: not subscribed, for {away_for:.0f} s"
        return checks

    async def _broker(self) -> str:
        try:
            async with asyncio.timeout(BROKER_CHECK):
                await self._publisher.session()
        except (BrokerUnavailable, TimeoutError):
            return f"cannot be reached, for {self._publisher.away_for or BROKER_CHECK:.0f} s"
        return "ok"

    async def _listen_first(self) -> None:
        """A device may answer its command at once; somebody should be there to hear it."""
        try:
            async with asyncio.timeout(LISTEN_FIRST):
                for each in self._listeners:
                    await each.tried.wait()
        except TimeoutError:
            return  # reports will wait in the broker, or deadlines mend it

    async def _dispatch(self, stop: asyncio.Event) -> None:
        async with self._publisher:
            await self._listen_first()
            await Rounds(self._pool, self._publisher, self._settings, stop).run()
