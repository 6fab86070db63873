"""A worker's loop: reads which campaigns are due, once a second and at each wake-up, and looks at them on schedule."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from math import inf

from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.timing import steps_of
from rollwave.engine.worker.tick import TURNS, Ticker, Turns
from rollwave.errors import RollwaveError
from rollwave.log import get_logger, report, trace
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import wake_ups
from rollwave.store.database import Pool, direct_pool
from rollwave.store.outage import is_away, is_outage
from rollwave.store.schema import explained
from rollwave.tasks import run_with

_log = get_logger("tick")

ASK_EVERY_SECONDS = 1.0
"""Seconds between two queries for due campaigns, if there is no wake-up."""

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for closing the connection that receives wake-ups."""

CANCEL_AGAIN_SECONDS = 2.0
"""Seconds after which a task that has lost its cancellation is cancelled again."""

LISTEN_AGAIN_SECONDS = 5.0
"""Seconds before the next try after the connection that receives wake-ups was lost."""


class CampaignLoop:
    """Runs until stopped, then waits for the campaigns in progress."""

    def __init__(
        self,
        pool: Pool,
        command_session: CommandSession,
        settings: Settings,
        stop: asyncio.Event,
        *,
        ask_every_seconds: float = ASK_EVERY_SECONDS,
        turns: Turns = TURNS,
    ) -> None:
        self._ask_every_seconds = min(ask_every_seconds, settings.tick_interval)
        self._pool = pool
        self._settings = settings
        self._stop = stop
        self._wake = asyncio.Event()
        """Set if there may be work: a campaign's status was changed, its next look is due, or the worker stops."""
        self._moved = False
        """Whether there was a wake-up since the last query for due campaigns."""
        self._log_once = LogOnce()
        self._asked_at = self._tick_logged_at = -inf
        steps = steps_of(settings.tick_interval)
        self._ticker = Ticker(
            pool, command_session, settings, stop.is_set, on_scheduled=self._wake.set, steps=steps, turns=turns
        )

    async def run(self) -> None:
        """Work until stopped."""
        try:
            await run_with(
                self._look_at_campaigns(),
                self._hear_stop(),
                self._hear_wake_ups(),
                grace=CANCEL_AGAIN_SECONDS,
                within=GIVE_UP_SECONDS,
            )
        finally:
            await self._ticker.cancel()

    async def _look_at_campaigns(self) -> None:
        every = self._ask_every_seconds
        while True:
            self._wake.clear()
            if self._stop.is_set():
                break
            if self._moved or time.monotonic() - self._asked_at >= every:
                await self._ask()
            with trace("tick"):
                self._ticker.look()
            pause = min(self._asked_at + every - time.monotonic(), self._ticker.wait)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause)):
                    await self._wake.wait()
        await self._ticker.drain()

    async def _ask(self) -> None:
        self._moved = False
        self._asked_at = now = time.monotonic()
        # The query runs more often than the tick. The log has one line per tick.
        quietly = now - self._tick_logged_at < self._settings.tick_interval
        self._tick_logged_at = self._tick_logged_at if quietly else now
        try:
            with trace("tick"):
                await self._ticker.ask(quietly=quietly)
            self._log_once.clear("tick")
        except Exception as error:  # noqa: BLE001  whatever it is, the worker continues and asks again
            # The pool has logged that the database is unavailable.
            if not is_away(error) and self._log_once.is_new("tick", type(error).__name__):
                _report(error)

    async def _hear_stop(self) -> None:
        await self._stop.wait()
        self._wake.set()

    async def _hear_wake_ups(self) -> None:
        """Receive wake-ups. Without them, changed campaigns are found at the next query."""
        while True:
            try:
                async with AsyncExitStack() as stack:
                    pool, direct = self._pool, self._settings.database_direct_url
                    if direct is not None:
                        pool = await stack.enter_async_context(direct_pool(direct.get_secret_value()))
                    await wake_ups.hear(pool, self._wake_up)
            except Exception as error:  # noqa: BLE001  nothing depends on it
                if not is_away(error) and self._log_once.is_new("wake_ups", type(error).__name__):
                    _log.warning("ota_calls_not_heard", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    def _wake_up(self, tenant_id: str) -> None:
        self._moved = True
        if tenant_id:
            self._ticker.look_soon(tenant_id)
        self._wake.set()


def _report(error: Exception) -> None:
    found = explained(error)
    if is_outage(error):
        _log.error("ota_tick_failed", error=f"{type(error).__name__}: {error}")
    else:
        report(_log, "ota_tick_failed", found if isinstance(found, RollwaveError) else error)
