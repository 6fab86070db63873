"""Reads of campaigns that callers at the same time share: however many look, PostgreSQL answers few."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rollwave.api.live.news import Snapshot

READS_AT_ONCE = 2
"""Maximum number of connections with which pages and streams read overviews: a worker shares the pool."""


class SharedReads:
    """Reads campaigns, each at most once at a time, and a few at a time in all.

    A read that has begun may not see what its caller has just done. So :meth:`fresh` joins only one that has not.
    """

    def __init__(self, read: Callable[[str, int], Awaitable[Snapshot]]) -> None:
        self._read = read
        self._at_once = asyncio.Semaphore(READS_AT_ONCE)
        self._running: dict[tuple[str, int], asyncio.Task[Snapshot]] = {}
        self._waiting: dict[tuple[str, int], asyncio.Task[Snapshot]] = {}

    async def fresh(self, tenant_id: str, campaign_id: int) -> Snapshot:
        """The campaign, by a read that begins after this call.

        Raises:
            NotFound: this tenant has no such campaign.
        """
        key = tenant_id, campaign_id
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = asyncio.create_task(self._turn(key))
        return await _shared(waiting)

    async def recent(self, tenant_id: str, campaign_id: int) -> Snapshot:
        """The campaign, by a read that may have begun already.

        Raises:
            NotFound: this tenant has no such campaign.
        """
        running = self._running.get((tenant_id, campaign_id))
        return await (self.fresh(tenant_id, campaign_id) if running is None else _shared(running))

    async def _turn(self, key: tuple[str, int]) -> Snapshot:
        task = asyncio.current_task()
        assert task is not None
        try:
            before = self._running.get(key)
            if before is not None:
                await asyncio.wait({before})
            async with self._at_once:
                del self._waiting[key]  # who comes now needs a later read
                self._running[key] = task
                return await self._read(*key)
        finally:
            for each in (self._waiting, self._running):
                if each.get(key) is task:
                    del each[key]


async def _shared(task: asyncio.Task[Snapshot]) -> Snapshot:
    """The result of a read. If one caller is cancelled, the read goes on for the others."""
    try:
        return await asyncio.shield(task)
    except BaseException:
        if task.done() and not task.cancelled():
            task.exception()  # if all callers are gone, asyncio need not log it
        raise
