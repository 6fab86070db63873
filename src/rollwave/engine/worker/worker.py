"""The work of a worker process: a loop that works on campaigns, and a listener for each slot."""

from __future__ import annotations

import asyncio
from functools import partial

from rollwave.engine.backpressure import Backpressure
from rollwave.engine.dispatch.resend import Resender
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest import listener
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.upkeep.settled import SettledCampaigns
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
    """Adds its tasks to a supervisor, and reports whether it can do its work."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool = guarded(pool)
        self._settings = settings
        self._problems = Problems()
        self._backpressure = Backpressure()
        self._command_session = CommandSession(Broker.from_settings(settings), self._problems, self._backpressure)
        self._listeners = [self._listener(slot) for slot in range(settings.listener_slots)]

    def join(self, supervisor: Supervisor) -> None:
        """Add this worker's tasks to the supervisor."""
        supervisor.add("dispatcher", self._dispatch)
        for slot in range(self._settings.listener_slots):
            supervisor.add(f"listener {slot}", partial(self._listen, slot))

    async def readiness(self) -> dict[str, str]:
        """The checks ``broker`` and ``reports``: ``ok``, or the problem."""
        return await readiness.engine(self._pool, self._settings, self._command_session, self._listeners)

    def _listener(self, slot: int) -> Listener:
        return make_listener(
            self._pool, self._settings, slot=slot, backpressure=self._backpressure, problems=self._problems
        )

    async def _listen(self, slot: int, stop: asyncio.Event) -> None:
        async def listen(life: Life) -> None:
            # Each start gets a new listener, since a stuck one may still use its own objects.
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
    """Make a listener for the slot. It looks after campaigns that its reports settle, and answers devices' questions.

    ``problems``: shared by the process, since other parts meet the same problems.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    problems = problems or Problems()
    resender = Resender(pool, settings, problems)
    settled = SettledCampaigns(pool, settings)

    async def beside() -> None:
        """Answer devices' questions, and look after settled campaigns, until cancelled."""
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
