"""Readers that poll during a schedule: events, each after the last one seen, and the reasons why devices wait.

Readers of a campaign use the events as the API does. Readers of a tenant are consumers of all its events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from rollwave.engine.explain import explain_device, waiting_devices
from rollwave.errors import DatabaseUnavailable
from rollwave.settings import Settings
from rollwave.store import events, views
from rollwave.store.database import Pool, create_pool
from rollwave.store.outage import CONNECTION_TROUBLE
from tests.engine import Connection
from tests.support import end, eventually

TROUBLE = (*CONNECTION_TROUBLE, DatabaseUnavailable)
REST = 0.01


class EventReader:
    """Polls the events of one campaign, or (None) of a whole tenant, in small pages."""

    def __init__(self, tenant: str, campaign: int | None, seed: int) -> None:
        self._tenant, self._campaign = tenant, campaign
        self._dice = random.Random(seed)
        self.seen: list[int] = []
        self._empty_pages = 0

    async def read(self, database: str) -> None:
        """Read until cancelled. A failed read is repeated."""
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
        """Events in history that were not seen exactly once, or not in order."""
        rows = await host.fetch(
            "SELECT id FROM ota_campaign_history"
            " WHERE tenant_id = $1 AND ($2::bigint IS NULL OR campaign_id = $2) ORDER BY id",
            self._tenant,
            self._campaign,
        )
        there = [row["id"] for row in rows]
        before = self._empty_pages
        # The first page may have been requested before that event.
        await eventually(lambda: self._empty_pages >= before + 2, timeout=20, what="the reader has seen all")
        seen = [each for each in self.seen if there and each <= there[-1]]
        if seen == there:
            return []
        whose = f"tenant {self._tenant}" if self._campaign is None else f"campaign {self._campaign}"
        return [f"{whose} has the events {there}, its reader saw {self.seen}"]


class Asker:
    """Polls why a campaign's devices wait, and why one of them does."""

    def __init__(self, tenant: str, campaign: int, settings: Settings, seed: int) -> None:
        self._tenant, self._campaign, self._settings = tenant, campaign, settings
        self._dice = random.Random(seed)
        self.answers = 0
        self.wrong: list[str] = []

    async def read(self, database: str) -> None:
        """Ask until cancelled. A failed question is repeated."""
        while True:
            try:
                async with create_pool(database, size=1) as pool:
                    while True:
                        await self._ask(pool)
                        await asyncio.sleep(REST)
            except TROUBLE:
                await asyncio.sleep(0.1)

    async def _ask(self, pool: Pool) -> None:
        found = await waiting_devices(pool, self._settings, self._tenant, self._campaign)
        if sum(each.devices for each in found.waiting) != found.pending:
            self.wrong.append(f"campaign {self._campaign}: {found.waiting} are not the {found.pending} that wait")
        listed = await views.devices(pool, self._tenant, self._campaign, status=None, limit=100)
        device = self._dice.choice(listed.rows)["device_id"]
        explained = await explain_device(pool, self._settings, self._tenant, self._campaign, device)
        closed = [each for each in explained.checks if not each.open]
        if explained.may_go_now is bool(closed) or not all(each.text for each in explained.checks):
            self.wrong.append(f"campaign {self._campaign}: {device} has {explained}")
        self.answers += 1


@asynccontextmanager
async def asking(
    database: str, campaigns: Mapping[int, str], settings: Settings, seed: int
) -> AsyncIterator[list[Asker]]:
    """Ask for each campaign (its id and its tenant) why its devices wait, during the block."""
    askers = [Asker(tenant, campaign, settings, seed) for campaign, tenant in campaigns.items()]
    async with _all_the_while([asyncio.create_task(each.read(database)) for each in askers]):
        yield askers


@asynccontextmanager
async def reading(database: str, campaigns: Mapping[int, str], seed: int) -> AsyncIterator[list[EventReader]]:
    """Read the events of each campaign (its id and its tenant) and of each tenant, during the block."""
    readers = [EventReader(tenant, campaign, seed) for campaign, tenant in campaigns.items()]
    readers += [EventReader(tenant, None, seed) for tenant in sorted(set(campaigns.values()))]
    async with _all_the_while([asyncio.create_task(each.read(database)) for each in readers]):
        yield readers


@asynccontextmanager
async def _all_the_while(tasks: Sequence[asyncio.Task[None]]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in tasks:
            await end(task)
    for task in tasks:
        assert task.cancelled(), f"a reader ended with {task.exception()!r}"
