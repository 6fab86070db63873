"""What every worker process runs: ticks, and a listener for each slot. Any number of workers may run at once."""

from __future__ import annotations

import asyncio
import time

from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.engine.supervisor import Supervisor
from rollwave.engine.tick import Ticker
from rollwave.log import get_logger
from rollwave.mqtt.client import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.outage import is_outage

_log = get_logger("worker")

LOOK_EVERY = 1.0
"""Seconds between two looks for campaigns that an operator has started, or that may go on."""


LISTEN_FIRST = 5.0
"""Seconds that the first tick waits for the listeners."""


class Worker:
    """Adds its tasks to a supervisor, and tells whether it can do its work."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._publisher = Publisher(Broker.from_settings(settings))
        self._listeners = [Listener(pool, settings, slot=slot) for slot in range(settings.listener_slots)]

    def join(self, supervisor: Supervisor) -> None:
        """Have the supervisor run this worker."""
        supervisor.add("dispatcher", self._tick)
        for number, listener in enumerate(self._listeners):
            supervisor.add(f"listener {number}", listener.run)

    async def readiness(self) -> dict[str, str]:
        """``broker``: ``ok``, or what is wrong. Standing by for a slot that another worker holds is ok."""
        present = all(each.presence.subscribed or each.presence.standby for each in self._listeners)
        return {"broker": "ok" if present else "not subscribed"}

    async def _listen_first(self) -> None:
        """A device may answer its command at once; somebody should be there to hear it."""
        try:
            async with asyncio.timeout(LISTEN_FIRST):
                for each in self._listeners:
                    await each.tried.wait()
        except TimeoutError:
            return  # reports will wait in the broker, or deadlines mend it

    async def _tick(self, stop: asyncio.Event) -> None:
        settings = self._settings
        spoke = -settings.tick_interval
        async with self._publisher:
            await self._listen_first()
            ticker = Ticker(self._pool, self._publisher, settings, stop.is_set)
            while not stop.is_set():
                wait: float | None = None
                # Looked more often than ticked: the pace is kept in the database, the log at the tick's rhythm.
                quietly = time.monotonic() - spoke < settings.tick_interval
                spoke = spoke if quietly else time.monotonic()
                try:
                    wait = await ticker.tick(quietly=quietly, patience=LOOK_EVERY)
                except Exception as error:
                    if not is_outage(error):
                        raise
                    _log.error("ota_tick_failed", error=f"{type(error).__name__}: {error}")
                pause = min(LOOK_EVERY, settings.tick_interval, wait if wait is not None else LOOK_EVERY)
                try:
                    await asyncio.wait_for(stop.wait(), pause)
                except TimeoutError:
                    continue
            await ticker.drain()
