"""What every worker process runs: ticks, and a listener for each slot. Any number of workers may run at once."""

from __future__ import annotations

import asyncio
from functools import partial

from rollwave.engine.backpressure import Backpressure
from rollwave.engine.dispatch.resend import Resender
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest import listener
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.upkeep.look import SettledCampaigns
from rollwave.engine.watchdog import Life, keep_running
from rollwave.engine.worker import readiness
from rollwave.engine.worker.loop import CampaignLoop
from rollwave.engine.worker.supervisor import Supervisor
from rollwave.log_once import Problems
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.guarded_pool import guarded


class Worker:
    """Adds its tasks to a supervisor, and tells whether it can do its work."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool = guarded(pool)
        self._settings = settings
        self._problems = Problems()
        self._backpressure = Backpressure()
        self._command_session = CommandSession(Broker.from_settings(settings), self._problems, self._backpressure)
        self._listeners = [self._listener(slot) for slot in range(settings.listener_slots)]

    def join(self, supervisor: Supervisor) -> None:
        """Have the supervisor run this worker."""
        supervisor.add("dispatcher", self._dispatch)
        for slot in range(self._settings.listener_slots):
            supervisor.add(f"listener {slot}", partial(self._listen, slot))

    async def readiness(self) -> dict[str, str]:
        """``broker`` and ``reports``: ``ok``, or what is wrong."""
        return await readiness.engine(self._pool, self._settings, self._command_session, self._listeners)

    def _listener(self, slot: int) -> Listener:
        return make_listener(
            self._pool, self._settings, slot=slot, backpressure=self._backpressure, problems=self._problems
        )

    async def _listen(self, slot: int, stop: asyncio.Event) -> None:
        async def listen(life: Life) -> None:
            # Another one each time: one that was left behind may still hold what it shares with nobody.
            self._listeners[slot] = self._listener(slot)
            await self._listeners[slot].run(stop, life)

        await keep_running(f"listener {slot}", listen, silence=listener.SILENCE_SECONDS, drain=listener.DRAIN_SECONDS)

    async def _dispatch(self, stop: asyncio.Event) -> None:
        async with self._command_session:
            await CampaignLoop(self._pool, self._command_session, self._settings, stop).run()


def make_listener(
    pool: Pool,
    settings: Settings,
    *,
    slot: int = 0,
    backpressure: Backpressure | None = None,
    problems: Problems | None = None,
) -> Listener:
    """A listener for the slot. Its reports set campaigns going, and answer devices that ask for their command.

    ``problems``: of the process, where other parts meet the same ones.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    problems = problems or Problems()
    resender = Resender(pool, settings, problems)
    settled = SettledCampaigns(pool, settings)

    async def beside() -> None:
        """Answer devices, and look after settled campaigns, until cancelled."""
        async with settled.accepted():
            await resender.run()

    return Listener(
        pool,
        settings,
        slot=slot,
        backpressure=backpressure,
        problems=problems,
        on_settled=settled.look_after,
        on_question=resender.ask,
        beside=beside,
    )
