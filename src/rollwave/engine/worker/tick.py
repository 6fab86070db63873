"""One pass over every campaign that needs the engine, or over those whose time has come."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.engine import identity
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.stop import skip_rest
from rollwave.engine.timing import SOON_SECONDS
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.gates import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.engine.worker.reconciler import Reconciler, tell
from rollwave.engine.worker.schedule import Schedule
from rollwave.log import get_logger, trace
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store.database import Pool
from rollwave.tasks import start

_log = get_logger("tick")

CANCEL_AGAIN_SECONDS = 1.0
"""Seconds after which what is still being tidied up is broken off too."""

LONGEST_REST_SECONDS = 10.0
"""Seconds for which a campaign is not looked at, at most."""

MAX_CAMPAIGNS_IN_PARALLEL = 4
"""Campaigns worked on at the same time, each with at most three connections of the pool."""


class Ticker:
    """Conducts and dispatches every due campaign, so that one campaign's error or delay never stops another's."""

    def __init__(
        self,
        pool: Pool,
        publisher: CommandSession,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        told: LogOnce | None = None,
        *,
        steps: int = 1,
    ) -> None:
        """``steps``: parts in which a tick's devices go out, one after the other; 1: all at once."""
        self._pool = pool
        self._interval = min(settings.tick_interval, LONGEST_REST_SECONDS)
        self._stopping = stopping
        self._upkeep = Upkeep(pool, settings)
        self._targeter = Targeter(pool)
        self._dispatcher = Dispatch(pool, publisher, settings, stopping, steps=steps)
        self._limit = asyncio.Semaphore(MAX_CAMPAIGNS_IN_PARALLEL)
        self._told = told or LogOnce()
        self._reconciler = Reconciler(Counters(pool, settings), self._told)
        self._agenda = Schedule()
        self._in_hand: dict[CampaignRef, asyncio.Task[None]] = {}
        self.ripened = asyncio.Event()
        """Set when a campaign has been looked at, and it is known when it wants to be again."""

    async def tick(self, *, quietly: bool = False) -> float:
        """One pass over every due campaign. Returns the seconds until one of them wants another look."""
        with trace("tick"):
            await self.ask(quietly=quietly)
            self._take_in_hand(self._agenda.all())
            while self._busy:
                await asyncio.wait(self._busy)
        return self.wait

    async def ask(self, *, quietly: bool = False) -> None:
        """Ask the database what is due; :meth:`look` goes by that."""
        await reach(Failpoint.ASKING_WHAT_IS_DUE)
        due = await campaigns.due(self._pool) if await identity.may_work(self._pool) else []
        by_status = Counter(each.status for each in due)
        for status in CampaignStatus:
            metrics.campaigns.labels(status.value).set(by_status[status])
        if not quietly:
            _log.info("ota_tick_start", running_campaigns=by_status[CampaignStatus.RUNNING])
        self._agenda.update(due)
        self._reconciler.update(due)

    def look(self) -> None:
        """Begin with the campaigns whose time has come; those still in hand are left be."""
        self._take_in_hand(self._agenda.ripe(time.monotonic()))

    @property
    def wait(self) -> float:
        """Seconds until the next campaign wants a look; infinite: none does."""
        return max(0.0, self._agenda.soonest - time.monotonic())

    async def drain(self) -> None:
        """Wait for the campaigns in hand; what is being compared is left."""
        for task in self._reconciler.busy:
            task.cancel()
        while self._busy:
            await asyncio.wait(self._busy)

    async def cancel(self) -> None:
        """Leave the campaigns in hand; what was claimed for them goes again when its lease ends."""
        while self._busy:
            for task in self._busy:
                task.cancel()
            await asyncio.wait(self._busy, timeout=CANCEL_AGAIN_SECONDS)

    @property
    def _busy(self) -> list[asyncio.Task[None]]:
        # One that was cancelled before it began never tidies up after itself.
        return [*(task for task in self._in_hand.values() if not task.done()), *self._reconciler.busy]

    def _take_in_hand(self, ripe: Iterable[CampaignRef]) -> None:
        for ref in ripe:
            if ref not in self._in_hand:
                self._agenda.begin(ref)
                self._in_hand[ref] = start(self._look_after(ref))

    async def _look_after(self, ref: CampaignRef) -> None:
        # Not all of them again at the same moment: spread, so that reports are not held up meanwhile.
        wait = self._interval * random.uniform(0.5, 1.0)  # noqa: S311  spreads load only
        turn, ends = 0.0, time.monotonic() + self._interval
        try:
            while not turn and not self._stopping() and time.monotonic() < ends:
                async with self._limit:
                    with metrics.tick_seconds.time():
                        turn = await self._do(ref)
            wait = min(wait, turn)
        finally:
            self._in_hand.pop(ref, None)
            self._agenda.again(ref, time.monotonic() + wait)
            self.ripened.set()
        self._reconciler.look(ref)

    async def _do(self, ref: CampaignRef) -> float:
        """What the campaign needs now, for a turn. Returns the seconds until it wants to be looked at again."""
        try:
            if ref.status is CampaignStatus.ABORTED and not await skip_rest(self._pool, ref):
                return 0.0
            look = await self._upkeep.look_after(ref)
            if look.being_targeted:
                wait = await self._targeter.target(ref)
            elif look.left_behind:
                wait = 0.0
            elif ref.status is CampaignStatus.RUNNING:
                wait = look.idle_seconds or await self._dispatcher.dispatch(ref)
            else:
                wait = 0.0 if look.more else inf
            self._told.clear(("ota_campaign_error", ref.tenant_id, ref.campaign_id))
        except Exception as error:  # noqa: BLE001  one campaign's error stops nothing else
            tell(self._told, "ota_campaign_error", ref, error)
            return SOON_SECONDS
        return wait
