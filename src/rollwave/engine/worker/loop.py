"""A worker's rounds: it asks what is due, once a second or when called, and looks at each campaign in its time."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from math import inf

from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.timing import steps_of
from rollwave.engine.worker.tick import Ticker
from rollwave.errors import RollwaveError
from rollwave.log import get_logger, report, trace
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import wake_ups
from rollwave.store.database import Pool, direct_pool
from rollwave.store.outage import is_away, is_outage
from rollwave.store.schema import explained
from rollwave.tasks import end, start

_log = get_logger("tick")

ASK_EVERY_SECONDS = 1.0
"""Seconds between two questions which campaigns are due, unless somebody calls."""

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for the connection that hears calls to be given up."""

LISTEN_AGAIN_SECONDS = 5.0
"""Seconds after which lost calls are listened to again."""


class CampaignLoop:
    """Goes on until stopped; then waits for the campaigns in hand."""

    def __init__(self, pool: Pool, publisher: CommandSession, settings: Settings, stop: asyncio.Event) -> None:
        steps = steps_of(settings.tick_interval)
        self._ticker = Ticker(pool, publisher, settings, stop.is_set, steps=steps)
        self._pool = pool
        self._settings = settings
        self._stop = stop
        self._called = asyncio.Event()
        self._told = LogOnce()
        self._asked = self._spoke = -inf

    async def run(self) -> None:
        """Go round."""
        hearing = start(self._hear_calls())
        every = min(ASK_EVERY_SECONDS, self._settings.tick_interval)
        try:
            while not self._stop.is_set():
                if self._called.is_set() or time.monotonic() - self._asked >= every:
                    await self._ask()
                self._ticker.ripened.clear()
                with trace("tick"):
                    self._ticker.look()
                pause = self._asked + every - time.monotonic()
                await _first(self._stop, self._called, self._ticker.ripened, within=min(pause, self._ticker.wait))
            await self._ticker.drain()
        finally:
            try:
                await end(hearing, within=GIVE_UP_SECONDS)
            finally:
                await self._ticker.cancel()

    async def _ask(self) -> None:
        self._called.clear()
        self._asked = now = time.monotonic()
        # Asked more often than ticked: the log keeps the tick's rhythm.
        quietly = now - self._spoke < self._settings.tick_interval
        self._spoke = self._spoke if quietly else now
        try:
            with trace("tick"):
                await self._ticker.ask(quietly=quietly)
            self._told.clear("tick")
        except Exception as error:  # noqa: BLE001  whatever it is, the worker goes on and asks again
            # That it is away, the pool has said.
            if not is_away(error) and self._told.is_new("tick", type(error).__name__):
                _report(error)

    async def _hear_calls(self) -> None:
        """Hear when campaigns are moved. Where that fails they are found at the next question."""
        while True:
            try:
                async with AsyncExitStack() as stack:
                    pool, direct = self._pool, self._settings.database_direct_url
                    if direct is not None:
                        pool = await stack.enter_async_context(direct_pool(direct.get_secret_value()))
                    await wake_ups.listen(pool, self._called.set)
            except Exception as error:  # noqa: BLE001  nothing depends on it
                if not is_away(error) and self._told.is_new("calls", type(error).__name__):
                    _log.warning("ota_calls_not_heard", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)


def _report(error: Exception) -> None:
    found = explained(error)
    if is_outage(error):
        _log.error("ota_tick_failed", error=f"{type(error).__name__}: {error}")
    else:
        report(_log, "ota_tick_failed", found if isinstance(found, RollwaveError) else error)


async def _first(*events: asyncio.Event, within: float) -> None:
    """Return once one of them is set, or the time is over."""
    waiting = [asyncio.create_task(each.wait()) for each in events]
    try:
        await asyncio.wait(waiting, timeout=max(0.0, within), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
