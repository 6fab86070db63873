"""Counters compared with the rows in time, beside everything else: of a very large campaign that takes seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from math import inf

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.engine.timing import SOON_SECONDS
from rollwave.engine.upkeep.counters import Counters
from rollwave.log import get_logger
from rollwave.log_once import LogOnce
from rollwave.store.outage import is_away
from rollwave.tasks import start

_log = get_logger("tick")

MAX_RECONCILED_IN_PARALLEL = 2
"""Campaigns reconciled at the same time."""


class Reconciler:
    """Knows when each campaign's counters are to be compared next, and does it as a task of its own."""

    def __init__(self, counters: Counters, told: LogOnce) -> None:
        self._counters = counters
        self._told = told
        self._limit = asyncio.Semaphore(MAX_RECONCILED_IN_PARALLEL)
        self._at: dict[CampaignRef, float] = {}
        self._in_hand: dict[CampaignRef, asyncio.Task[None]] = {}

    @property
    def busy(self) -> Collection[asyncio.Task[None]]:
        """What is being done. One that was cancelled before it began never tidies up after itself."""
        return [task for task in self._in_hand.values() if not task.done()]

    def look(self, ref: CampaignRef) -> None:
        """Begin if it is time."""
        name = ref
        counts = ref.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED, CampaignStatus.ABORTED}
        if counts and name not in self._in_hand and self._at.get(name, -inf) <= time.monotonic():
            self._in_hand[name] = start(self._reconcile(ref))

    def update(self, due: Collection[CampaignRef]) -> None:
        """Forget whatever is not due any more."""
        names = set(due)
        self._at = {name: at for name, at in self._at.items() if name in names}

    async def _reconcile(self, ref: CampaignRef) -> None:
        wait = SOON_SECONDS
        try:
            async with self._limit:
                wait = await self._counters.reconcile(ref)
            self._told.clear(("ota_reconcile_failed", ref.tenant_id, ref.campaign_id))
        except Exception as error:  # noqa: BLE001  one campaign's recount stops nothing else
            tell(self._told, "ota_reconcile_failed", ref, error)
        finally:
            self._at[ref] = time.monotonic() + wait
            del self._in_hand[ref]


def tell(told: LogOnce, event: str, ref: CampaignRef, error: Exception) -> None:
    """Once for each campaign and kind of error, until it goes well. That the database is away, the pool says."""
    if not is_away(error) and told.is_new((event, ref.tenant_id, ref.campaign_id), type(error).__name__):
        _log.exception(event, campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
