"""Readers of events, each of which asks for what comes after the last id that it saw.

Those of a campaign read as the API does, those of a tenant as a consumer of all its events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from rollwave.errors import DatabaseUnavailable
from rollwave.store import events, views
from rollwave.store.database import Pool, create_pool
from rollwave.store.outage import CONNECTION_TROUBLE
from tests.engine import Connection
from tests.support import end, eventually

TROUBLE = (*CONNECTION_TROUBLE, DatabaseUnavailable)
REST = 0.01


class EventReader:
    """Reads the events of one campaign, or (None) of all of a tenant's, in small pages, all the while."""

    def __init__(self, tenant: str, campaign: int | None, seed: int) -> None:
        self._tenant, self._campaign = tenant, campaign
        self._dice = random.Random(seed)
        self.seen: list[int] = []
        self._empty_pages = 0

    async def read(self, database: str) -> None:
        """Read until cancelled; what fails is asked for again."""
        while True:
            try:
                async with create_pool(database, size=1) as pool:
                    while True:
                        page = await self._page(pool, self.seen[-1] if self.seen else 0, self._dice.randint(1, 20))
                        self.seen += page
                        self._empty_pages += not page
                        await asyncio.sleep(REST)
            except TROUBLE:
                await asyncio.sleep(0.1)

    async def _page(self, pool: Pool, after: int, limit: int) -> list[int]:
        if self._campaign is None:
            return [event.id for event in await events.read(pool, self._tenant, after=after, limit=limit)]
        page = await views.events(pool, self._tenant, self._campaign, after=after, limit=limit)
        return [event["id"] for event in page]

    async def differences(self, host: Connection) -> list[str]:
        """Events that are in history and were not seen once, in their order."""
        rows = await host.fetch(
            "SELECT id FROM ota_campaign_history"
            " WHERE tenant_id = $1 AND ($2::bigint IS NULL OR campaign_id = $2) ORDER BY id",
            self._tenant,
            self._campaign,
        )
        there = [row["id"] for row in rows]
        before = self._empty_pages
        # The first page may have been asked for before that.
        await eventually(lambda: self._empty_pages >= before + 2, timeout=20, what="the reader has seen all")
        seen = [each for each in self.seen if there and each <= there[-1]]
        if seen == there:
            return []
        whose = f"tenant {self._tenant}" if self._campaign is None else f"campaign {self._campaign}"
        return [f"{whose} has the events {there}, its reader saw {self.seen}"]


@asynccontextmanager
async def reading(database: str, campaigns: Mapping[int, str], seed: int) -> AsyncIterator[list[EventReader]]:
    """A reader for each campaign (its id and its tenant) and for each of the tenants, for the block."""
    readers = [EventReader(tenant, campaign, seed) for campaign, tenant in campaigns.items()]
    readers += [EventReader(tenant, None, seed) for tenant in sorted(set(campaigns.values()))]
    tasks = [asyncio.create_task(each.read(database)) for each in readers]
    try:
        yield readers
    finally:
        for task in tasks:
            await end(task)
    for task in tasks:
        assert task.cancelled(), f"a reader ended with {task.exception()!r}"
