"""What every worker process runs: ticks, and a listener for each slot. Any number of workers may run at once."""

from __future__ import annotations

import asyncio
from functools import partial
from math import isfinite

from rollwave.engine import listener
from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.engine.rounds import Rounds
from rollwave.engine.supervisor import Supervisor
from rollwave.engine.watchdog import Life, keep_running
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store import slots
from rollwave.store.database import Pool
from rollwave.store.outage import CONNECTION_TROUBLE, is_away
from rollwave.store.watched import watched

_log = get_logger("worker")

BROKER_CHECK = 3.0
"""Seconds in which the broker should let us in, when somebody asks whether this worker is ready."""


class Worker:
    """Adds its tasks to a supervisor, and tells whether it can do its work."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool = watched(pool)
        self._settings = settings
        self._publisher = Publisher(Broker.from_settings(settings))
        self._listeners = [self._listener(slot) for slot in range(settings.listener_slots)]

    def join(self, supervisor: Supervisor) -> None:
        """Have the supervisor run this worker."""
        supervisor.add("dispatcher", self._dispatch)
        for slot in range(self._settings.listener_slots):
            supervisor.add(f"listener {slot}", partial(self._listen, slot))

    async def readiness(self) -> dict[str, str]:
        """``broker`` and ``reports``: ``ok``, or what is wrong. To stand by for another worker's slot is ok."""
        return {"broker": await self._broker(), "reports": await self._reports()}

    async def _reports(self) -> str:
        for each in self._listeners:
            if each.fault:
                return each.fault
        try:
            unheard_for = await slots.unheard_for(self._pool, self._settings.listener_slots)
        except CONNECTION_TROUBLE as error:
            if not is_away(error):
                return f"cannot be told: {type(error).__name__}"
            unheard_for = None  # the check of the database says so
        if unheard_for is not None:
            since = f"for {unheard_for:.0f} s" if isfinite(unheard_for) else "none ever was"
            return f"cannot come in: no listener is subscribed, {since}; nothing is sent"
        if not all(each.presence.subscribed or each.presence.standby for each in self._listeners):
            away_for = max((each.away_for or 0.0 for each in self._listeners), default=0.0)
            return f"cannot come in: not subscribed, for {away_for:.0f} s"
        return "ok"

    def _listener(self, slot: int) -> Listener:
        return Listener(self._pool, self._settings, slot=slot, precedence=self._publisher.precedence)

    async def _listen(self, slot: int, stop: asyncio.Event) -> None:
        async def listen(life: Life) -> None:
            # Another one each time: one that was left behind may still hold what it shares with nobody.
            self._listeners[slot] = self._listener(slot)
            await self._listeners[slot].run(stop, life)

        await keep_running(f"listener {slot}", listen, silence=listener.SILENCE, drain=listener.DRAIN)

    async def _broker(self) -> str:
        try:
            async with asyncio.timeout(BROKER_CHECK):
                await self._publisher.session()
        except (BrokerUnavailable, TimeoutError):
            return f"cannot be reached, for {self._publisher.away_for or BROKER_CHECK:.0f} s"
        return "ok"

    async def _dispatch(self, stop: asyncio.Event) -> None:
        async with self._publisher:
            await Rounds(self._pool, self._publisher, self._settings, stop).run()
