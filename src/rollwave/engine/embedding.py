"""For a host: one tick, the listener, and a loop, over the host's own pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass

from rollwave.breaker import Told
from rollwave.engine import listener
from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.engine.tick import Ticker
from rollwave.engine.watchdog import Life, keep_running
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.settings import ENGINE, Settings
from rollwave.store.database import Pool
from rollwave.store.outage import is_away
from rollwave.store.watched import watched

_log = get_logger("tick")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept from tick to tick in a host's loop over ``pool``."""

    pool: Pool
    watched: Pool
    publisher: Publisher
    told: Told


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


async def run_ota_campaign_tick(pool: Pool) -> None:
    """One tick over all ``RUNNING`` campaigns. A campaign's own trouble is logged, never raised.

    Called more often than once a tick interval it sends nothing extra: the pace is kept in the database.
    A window that opens within a twentieth of the interval is waited for, so a caller's jitter loses no tick.
    """
    settings = Settings.load(ENGINE)
    async with AsyncExitStack() as stack:
        kept = _kept.get()
        if kept is None or kept.pool is not pool:
            publisher = await stack.enter_async_context(Publisher(Broker.from_settings(settings)))
            kept = _Kept(pool, watched(pool), publisher, Told())
        ticker = Ticker(kept.watched, kept.publisher, settings, told=kept.told)
        try:
            wait = await ticker.tick()
            if wait <= settings.tick_interval / 20:
                await asyncio.sleep(wait)
                await ticker.tick(quietly=True)
        finally:
            await ticker.cancel()


async def run_ota_status_listener(pool: Pool) -> None:
    """Take in devices' reports until cancelled, reconnecting by itself; on cancel the batch in hand is finished."""
    settings, seen = Settings.load(ENGINE), watched(pool)

    async def listen(life: Life) -> None:
        await Listener(seen, settings).run(life=life)

    await keep_running("listener 0", listen, silence=listener.SILENCE, drain=listener.DRAIN)


async def worker_loop(tick: Callable[[Pool], Awaitable[None]], pool: Pool, interval: float | None = None) -> None:
    """Call ``tick(pool)`` every ``interval`` seconds (default: OTA_TICK_INTERVAL) until cancelled.

    An error of the tick is logged and the loop goes on. One publishing session is kept from tick to tick.
    """
    settings = Settings.load(ENGINE)
    every = settings.tick_interval if interval is None else interval
    async with Publisher(Broker.from_settings(settings)) as publisher:
        told = Told()
        token = _kept.set(_Kept(pool, watched(pool), publisher, told))
        try:
            while True:
                started = time.monotonic()
                try:
                    await tick(pool)
                    told.over("tick")
                except Exception as error:  # noqa: BLE001  one campaign's error, or one tick's, stops nothing else
                    if told.news("tick", "away" if is_away(error) else type(error).__name__):
                        _log.exception("ota_tick_failed")
                await asyncio.sleep(max(0.0, every - (time.monotonic() - started)))
        finally:
            _kept.reset(token)
