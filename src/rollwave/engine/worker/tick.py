"""Works on the campaigns that are due: all of them in one pass, or each when its schedule says so."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from rollwave import metrics
from rollwave.domain.campaign import FINAL, CampaignRef, CampaignStatus
from rollwave.engine import identity
from rollwave.engine.dispatch.cancel import Cancels
from rollwave.engine.dispatch.pipeline import Dispatch
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.stop import MAX_SKIPPED_PER_BATCH, skip_rest
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.device_fields import store_fields
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.keyed_tasks import KeyedTasks
from rollwave.log import get_logger, trace
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import brakes, campaigns
from rollwave.store.database import Pool
from rollwave.store.outage import is_away

_log = get_logger("tick")

LONGEST_REST_SECONDS = 10.0
"""Maximum number of seconds between two looks at a campaign."""

MAX_CAMPAIGNS_IN_PARALLEL = 4
"""Maximum number of campaigns worked on in parallel. Each uses at most three connections of the pool."""

MAX_RECONCILED_IN_PARALLEL = 2
"""Maximum number of campaigns reconciled in parallel."""

RECONCILED = frozenset({CampaignStatus.RUNNING, CampaignStatus.PAUSED, CampaignStatus.ABORTED})


class Schedule:
    """When to look at each campaign next: immediately if it is new or has changed, otherwise when its last look said.

    Times are seconds of a clock of the caller's choice.
    """

    def __init__(self) -> None:
        self._due: dict[CampaignRef, CampaignRef] = {}
        self._at: dict[CampaignRef, float] = {}
        self._in_hand: set[CampaignRef] = set()
        self._queue: list[tuple[float, CampaignRef]] = []
        """A heap. Entries that differ from ``_at``, or whose campaign is in progress, are ignored."""

    def update(self, due: Sequence[CampaignRef]) -> None:
        """Replace the due campaigns. New ones, and those whose status changed, are looked at immediately."""
        before, self._due = self._due, {ref: ref for ref in due}
        self._at = {ref: at for ref, at in self._at.items() if ref in self._due}
        for ref in due:
            if ref not in before or before[ref].status is not ref.status:
                self._put(ref, -inf)

    def all(self) -> list[CampaignRef]:
        """All due campaigns."""
        return list(self._due.values())

    def look_soon(self, tenant_id: str) -> None:
        """Look at every due campaign of the tenant immediately, or when the work on it has ended."""
        for ref in self._due:
            if ref.tenant_id == tenant_id:
                self._put(ref, -inf)

    def ready(self, now: float) -> list[CampaignRef]:
        """The campaigns to look at by ``now``. Each is returned once, until :meth:`again` schedules it."""
        found = []
        while self.next_at <= now:
            _, ref = heappop(self._queue)
            del self._at[ref]
            found.append(self._due[ref])
        return found

    def begin(self, ref: CampaignRef) -> None:
        """Record that work on the campaign begins. It is not ready before the work has ended."""
        self._in_hand.add(ref)
        self._at.pop(ref, None)

    def again(self, ref: CampaignRef, at: float) -> None:
        """Set the time of the next look, unless an earlier one is already set."""
        self._in_hand.discard(ref)
        if ref in self._due:
            self._put(ref, min(at, self._at.get(ref, inf)))

    @property
    def next_at(self) -> float:
        """Time of the next look at any campaign; infinite: there is none."""
        while self._queue:
            at, ref = self._queue[0]
            if self._at.get(ref) == at and ref not in self._in_hand:
                return at
            heappop(self._queue)
        return inf

    def _put(self, ref: CampaignRef, at: float) -> None:
        self._at[ref] = at
        heappush(self._queue, (at, ref))


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds for one campaign before others get their turn, number in parallel, devices skipped per transaction."""

    seconds: float = TURN_SECONDS
    in_parallel: int = MAX_CAMPAIGNS_IN_PARALLEL
    skipped_per_batch: int = MAX_SKIPPED_PER_BATCH


TURNS = Turns()


class Ticker:
    """Looks after every due campaign and sends its commands. An error or delay of one campaign never stops another."""

    def __init__(
        self,
        pool: Pool,
        command_session: CommandSession,
        settings: Settings,
        stopping: Callable[[], bool] = lambda: False,
        *,
        on_scheduled: Callable[[], None] = lambda: None,
        log_once: LogOnce | None = None,
        steps: int = 1,
        turns: Turns = TURNS,
    ) -> None:
        """Work for all campaigns of a database.

        Args:
            stopping: whether the worker stops; then no more work begins.
            on_scheduled: called when work on a campaign has ended and its next look is scheduled.
            steps: number of parts in which a tick's devices are sent to, one after the other; 1: all at once.
        """
        self._pool = pool
        self._turns = turns
        self._interval = min(settings.tick_interval, LONGEST_REST_SECONDS)
        self._stopping = stopping
        self._on_scheduled = on_scheduled
        self._log_once = log_once or LogOnce()
        self._counters = Counters(pool, settings)
        self._upkeep = Upkeep(pool, settings)
        self._targeter = Targeter(pool)
        self._dispatch = Dispatch(
            pool, command_session, settings, self._counters.count, stopping, steps=steps, turn_seconds=turns.seconds
        )
        self._cancels = Cancels(pool, command_session, settings, stopping, turn_seconds=turns.seconds)
        self._schedule = Schedule()
        self._work = KeyedTasks(self._work_on, in_parallel=turns.in_parallel)
        self._reconciling = KeyedTasks(self._reconcile, in_parallel=MAX_RECONCILED_IN_PARALLEL)
        """Reconciliations run beside everything else: for a very large campaign one takes seconds."""
        self._reconciled_again_at: dict[CampaignRef, float] = {}

    async def tick(self, *, quietly: bool = False) -> float:
        """Look at every due campaign once. Returns the seconds until the next look at one of them."""
        with trace("tick"):
            await self.ask(quietly=quietly)
            self._begin(self._schedule.all())
            await self._work.drain()
            await self._reconciling.drain()
        return self.wait

    async def ask(self, *, quietly: bool = False) -> None:
        """Read the due campaigns from the database, for :meth:`look`."""
        await reach(Failpoint.ASKING_WHAT_IS_DUE)
        due = await campaigns.due(self._pool) if await identity.may_work(self._pool) else []
        by_status = Counter(each.status for each in due)
        for status in CampaignStatus:
            metrics.campaigns.labels(status.value).set(by_status[status])
        if not quietly:
            metrics.halted_tenants.set(await brakes.halted_tenants(self._pool))
            _log.info("ota_tick_start", running_campaigns=by_status[CampaignStatus.RUNNING])
        self._schedule.update(due)
        names = set(due)
        self._reconciled_again_at = {ref: at for ref, at in self._reconciled_again_at.items() if ref in names}

    def look(self) -> None:
        """Begin work on the campaigns that are ready and not in progress."""
        self._begin(self._schedule.ready(time.monotonic()))

    def look_soon(self, tenant_id: str) -> None:
        """Look at every due campaign of the tenant immediately: what may be sent has changed."""
        self._schedule.look_soon(tenant_id)

    @property
    def wait(self) -> float:
        """Seconds until the next look at a campaign; infinite: there is none."""
        return max(0.0, self._schedule.next_at - time.monotonic())

    async def drain(self) -> None:
        """Wait for the campaigns in progress, but not for reconciliations."""
        await self._work.drain()
        await self._reconciling.cancel()

    async def cancel(self) -> None:
        """Cancel the work in progress. Claimed devices are sent to again when their lease ends."""
        try:
            await self._work.cancel()
        finally:
            await self._reconciling.cancel()

    def _begin(self, refs: Iterable[CampaignRef]) -> None:
        for ref in refs:
            if ref not in self._work:
                self._schedule.begin(ref)
                self._work.start(ref)

    async def _work_on(self, ref: CampaignRef) -> None:
        """Work on a campaign, turn after turn while there is more to do, for at most one interval. Then schedule it."""
        # Spread the next looks over time, so that they do not delay reports.
        wait = self._interval * random.uniform(0.5, 1.0)  # noqa: S311  spreads load only
        wanted_in, ends = 0.0, time.monotonic() + self._interval
        try:
            while not wanted_in and not self._stopping() and time.monotonic() < ends:
                async with self._work.turn(ref):
                    with metrics.tick_seconds.time():
                        wanted_in = await self._do(ref)
            wait = min(wait, wanted_in)
        finally:
            self._schedule.again(ref, time.monotonic() + wait)
            self._on_scheduled()
        if ref.status in RECONCILED and self._reconciled_again_at.get(ref, -inf) <= time.monotonic():
            self._reconciling.start(ref)

    async def _skip_rest(self, ref: CampaignRef) -> bool:
        turns = self._turns
        return await skip_rest(self._pool, ref, turn_seconds=turns.seconds, per_batch=turns.skipped_per_batch)

    async def _do(self, ref: CampaignRef) -> float:
        """Do what the campaign needs now, for one turn. Returns the seconds until its next look."""
        tell_in = inf
        try:
            if ref.status is CampaignStatus.ABORTED:
                tell_in = await self._cancels.tell(ref)
                if not await self._skip_rest(ref):
                    return 0.0
            if ref.status in FINAL and (stored := await store_fields(self._pool, ref)) is not None:
                return inf if stored else 0.0
            look = await self._upkeep.look_after(ref)
            if look.unplaced:
                await self._targeter.place_inserted(ref)
            if look.being_targeted:
                wait = await self._targeter.target(ref)
            elif look.left_behind:
                wait = 0.0
            elif ref.status is CampaignStatus.RUNNING:
                wait = look.idle_seconds or await self._dispatch.dispatch(ref)
            else:
                wait = 0.0 if look.more else inf
            self._log_once.clear(("ota_campaign_error", ref.tenant_id, ref.campaign_id))
        except Exception as error:  # noqa: BLE001  one campaign's error stops nothing else
            self._log_failure("ota_campaign_error", ref, error)
            return SOON_SECONDS
        return min(wait, tell_in)

    async def _reconcile(self, ref: CampaignRef) -> None:
        wait = SOON_SECONDS
        try:
            async with self._reconciling.turn(ref):
                wait = await self._counters.reconcile(ref)
            self._log_once.clear(("ota_reconcile_failed", ref.tenant_id, ref.campaign_id))
        except Exception as error:  # noqa: BLE001  one campaign's recount stops nothing else
            self._log_failure("ota_reconcile_failed", ref, error)
        finally:
            self._reconciled_again_at[ref] = time.monotonic() + wait

    def _log_failure(self, event: str, ref: CampaignRef, error: Exception) -> None:
        """Log an error once for each campaign and kind, until its work succeeds. The pool logs database outages."""
        key = (event, ref.tenant_id, ref.campaign_id)
        if not is_away(error) and self._log_once.is_new(key, type(error).__name__):
            _log.exception(event, campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
