"""Readers of a campaign's events, as the API has them: each asks for what comes after the last id that it saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from rollwave.errors import DatabaseUnavailable
from rollwave.store import views
from rollwave.store.database import create_pool
from rollwave.store.outage import CONNECTION_TROUBLE
from tests.engine import Connection
from tests.support import end, eventually

TROUBLE = (*CONNECTION_TROUBLE, DatabaseUnavailable)
REST = 0.01


class EventReader:
    """Reads one campaign's events in small pages, all the while."""

    def __init__(self, tenant: str, campaign: int, seed: int) -> None:
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
                        after = self.seen[-1] if self.seen else 0
                        limit = self._dice.randint(1, 20)
                        page = await views.events(pool, self._tenant, self._campaign, after=after, limit=limit)
                        self.seen += [event["id"] for event in page]
                        self._empty_pages += not page
                        await asyncio.sleep(REST)
            except TROUBLE:
                await asyncio.sleep(0.1)

    async def differences(self, host: Connection) -> list[str]:
        """Events that are in history and were not seen once, in their order."""
        rows = await host.fetch(
            "SELECT id FROM ota_campaign_history WHERE tenant_id = $1 AND campaign_id = $2 ORDER BY id",
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
        return [f"campaign {self._campaign} has the events {there}, its reader saw {self.seen}"]


@asynccontextmanager
async def reading(database: str, campaigns: Mapping[int, str], seed: int) -> AsyncIterator[list[EventReader]]:
    """A reader for each campaign (its id and its tenant), for the block."""
    readers = [EventReader(tenant, campaign, seed) for campaign, tenant in campaigns.items()]
    tasks = [asyncio.create_task(each.read(database)) for each in readers]
    try:
        yield readers
    finally:
        for task in tasks:
            await end(task)
    for task in tasks:
        assert task.cancelled(), f"a reader ended with {task.exception()!r}"
