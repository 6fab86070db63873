"""One pass over every campaign that needs the engine, and the loop that repeats it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass

from rollwave import metrics
from rollwave.breaker import Told
from rollwave.domain.campaign import CampaignStatus
from rollwave.engine.conductor import Conductor
from rollwave.engine.dispatcher import Dispatcher
from rollwave.engine.listener import Listener
from rollwave.engine.publisher import Publisher
from rollwave.log import get_logger, trace
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store.campaigns import Due
from rollwave.store.database import Pool
from rollwave.store.outage import is_away
from rollwave.store.watched import watched

_log = get_logger("tick")

AT_ONCE = 4
"""Campaigns worked on at the same time, each with at most three connections of the pool."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept from tick to tick in a host's loop over ``pool``."""

    pool: Pool
    watched: Pool
    publisher: Publisher
    told: Told


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


class Ticker:
    """Conducts and dispatches every due campaign, so that one campaign's error or delay never stops another's."""

    def __init__(
        self,
        pool: Pool,
        publisher: Publisher,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        told: Told | None = None,
    ) -> None:
        self._pool = pool
        self._conductor = Conductor(pool, settings)
        self._dispatcher = Dispatcher(pool, publisher, settings, stopping)
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._told = told or Told()
        self._in_hand: dict[tuple[str, int], asyncio.Task[float | None]] = {}

    async def tick(self, *, quietly: bool = False, patience: float | None = None) -> float | None:
        """One pass. Returns the seconds until some campaign's pace allows more; None: no pace holds one back.

        Campaigns that take longer than ``patience`` seconds stay in hand, and the next pass leaves them be.
        """
        with trace("tick"), metrics.tick_seconds.time():
            due = await campaigns.due(self._pool)
            by_status = Counter(each.status for each in due)
            for status in CampaignStatus:
                metrics.campaigns.labels(status.value).set(by_status[status])
            if not quietly:
                _log.info("ota_tick_start", running_campaigns=by_status[CampaignStatus.RUNNING])
            started = [
                self._take_in_hand(each) for each in due if (each.tenant_id, each.campaign_id) not in self._in_hand
            ]
            done = (await asyncio.wait(started, timeout=patience))[0] if started else set()
        waits = [task.result() for task in done]
        return min((wait for wait in waits if wait is not None), default=None)

    async def drain(self) -> None:
        """Wait for the campaigns in hand."""
        await asyncio.gather(*self._in_hand.values(), return_exceptions=True)

    async def cancel(self) -> None:
        """Leave the campaigns in hand; what was claimed for them goes again when its lease ends."""
        for task in self._in_hand.values():
            task.cancel()
        await self.drain()

    def _take_in_hand(self, due: Due) -> asyncio.Task[float | None]:
        task = asyncio.create_task(self._look_after(due))
        key = (due.tenant_id, due.campaign_id)
        self._in_hand[key] = task
        task.add_done_callback(lambda _: self._in_hand.pop(key, None))
        return task

    async def _look_after(self, due: Due) -> float | None:
        async with self._limit:
            try:
                if due.status is CampaignStatus.ABORTED:
                    await self._conductor.skip_rest(due)
                await self._conductor.conduct(due)
                wait = await self._dispatcher.dispatch(due) if due.status is CampaignStatus.RUNNING else None
                self._told.over(("ota_campaign_error", due.tenant_id, due.campaign_id))
                return wait
            except Exception as error:  # noqa: BLE001  one campaign's error stops nothing else
                self._tell("ota_campaign_error", due, error)
            finally:
                await self._reconcile(due)
            return None

    def _tell(self, event: str, due: Due, error: Exception) -> None:
        """Once for each campaign and kind of error, until it goes well. That the database is away, the pool says."""
        if not is_away(error) and self._told.news((event, due.tenant_id, due.campaign_id), type(error).__name__):
            _log.exception(event, campaign_id=due.campaign_id, tenant_id=due.tenant_id)

    async def _reconcile(self, due: Due) -> None:
        if due.status is CampaignStatus.ABORTED:
            return
        try:
            await self._conductor.reconcile(due)
            self._told.over(("ota_reconcile_failed", due.tenant_id, due.campaign_id))
        except Exception as error:  # noqa: BLE001  nor does its recount
            self._tell("ota_reconcile_failed", due, error)


async def run_ota_campaign_tick(pool: Pool) -> None:
    """One tick over all ``RUNNING`` campaigns. A campaign's own trouble is logged, never raised.

    Called more often than once a tick interval it sends nothing extra: the pace is kept in the database.
    A window that opens within a twentieth of the interval is waited for, so a caller's jitter loses no tick.
    """
    settings = Settings.load()
    async with AsyncExitStack() as stack:
        kept = _kept.get()
        if kept is None or kept.pool is not pool:
            publisher = await stack.enter_async_context(Publisher(Broker.from_settings(settings)))
            kept = _Kept(pool, watched(pool), publisher, Told())
        ticker = Ticker(kept.watched, kept.publisher, settings, told=kept.told)
        try:
            wait = await ticker.tick()
            if wait is not None and wait <= settings.tick_interval / 20:
                await asyncio.sleep(wait)
                await ticker.tick(quietly=True)
        finally:
            await ticker.cancel()


async def run_ota_status_listener(pool: Pool) -> None:
    """Take in devices' reports until cancelled, reconnecting by itself; on cancel the batch in hand is finished."""
    await Listener(watched(pool), Settings.load()).run()


async def worker_loop(tick: Callable[[Pool], Awaitable[None]], pool: Pool, interval: float | None = None) -> None:
    """Call ``tick(pool)`` every ``interval`` seconds (default: OTA_TICK_INTERVAL) until cancelled.

    An error of the tick is logged and the loop goes on. One publishing session is kept from tick to tick.
    """
    settings = Settings.load()
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
