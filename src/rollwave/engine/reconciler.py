"""Counters compared with the rows in time, beside everything else: of a very large campaign that takes seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from math import inf

from rollwave.breaker import Told
from rollwave.domain.campaign import CampaignStatus
from rollwave.engine.agenda import SOON, Key, key
from rollwave.engine.conductor import Conductor
from rollwave.log import get_logger
from rollwave.store.campaigns import Due
from rollwave.store.outage import is_away
from rollwave.tasks import start

_log = get_logger("tick")

AT_ONCE = 2
"""Campaigns reconciled at the same time."""


class Reconciler:
    """Knows when each campaign's counters are to be compared next, and does it as a task of its own."""

    def __init__(self, conductor: Conductor, told: Told) -> None:
        self._conductor = conductor
        self._told = told
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._at: dict[Key, float] = {}
        self._in_hand: dict[Key, asyncio.Task[None]] = {}

    @property
    def busy(self) -> Collection[asyncio.Task[None]]:
        """What is being done. One that was cancelled before it began never tidies up after itself."""
        return [task for task in self._in_hand.values() if not task.done()]

    def look(self, due: Due) -> None:
        """Begin if it is time."""
        name = key(due)
        counts = due.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED, CampaignStatus.ABORTED}
        if counts and name not in self._in_hand and self._at.get(name, -inf) <= time.monotonic():
            self._in_hand[name] = start(self._reconcile(due))

    def update(self, due: Collection[Due]) -> None:
        """Forget whatever is not due any more."""
        names = {key(each) for each in due}
        self._at = {name: at for name, at in self._at.items() if name in names}

    async def _reconcile(self, due: Due) -> None:
        wait = SOON
        try:
            async with self._limit:
                wait = await self._conductor.reconcile(due)
            self._told.over(("ota_reconcile_failed", due.tenant_id, due.campaign_id))
        except Exception as error:  # noqa: BLE001  one campaign's recount stops nothing else
            tell(self._told, "ota_reconcile_failed", due, error)
        finally:
            self._at[key(due)] = time.monotonic() + wait
            del self._in_hand[key(due)]


def tell(told: Told, event: str, due: Due, error: Exception) -> None:
    """Once for each campaign and kind of error, until it goes well. That the database is away, the pool says."""
    if not is_away(error) and told.news((event, due.tenant_id, due.campaign_id), type(error).__name__):
        _log.exception(event, campaign_id=due.campaign_id, tenant_id=due.tenant_id)
