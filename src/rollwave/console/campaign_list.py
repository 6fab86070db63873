"""The rows of the list of campaigns, in the order in which they need a person, read once for all who look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rollwave.console.shared import Shared
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.headline import Level
from rollwave.engine.overview import campaigns
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.moments import Document

PAGE = 100
"""Rows of a page that ended, or that a filter selects."""
MAX_UNFINISHED = 300
"""Rows of each unfinished status on the first page."""
SECONDS = 2.5
"""How long a list is shown before it is read again. Pages ask every 5 seconds."""
RECENT = timedelta(hours=24)
"""A campaign that a guardrail has aborted stands first for so long."""

_UNFINISHED = (CampaignStatus.RUNNING, CampaignStatus.PAUSED, CampaignStatus.CREATED)
_LEVELS = {Level.STOP: 0, Level.WATCH: 1}
_FINAL = 5


@dataclass(frozen=True, slots=True)
class CampaignPage:
    """The rows of a page. ``next_cursor`` None: it is the last one. ``total``: campaigns that the filter selects."""

    rows: Sequence[Document]
    total: int
    next_cursor: int | None


class CampaignLists:
    """Reads pages of the list for all sessions of a process."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings
        self._pages: Shared[CampaignPage] = Shared(SECONDS)

    async def page(self, tenant_id: str, status: CampaignStatus | None, cursor: int | None) -> CampaignPage:
        """A page. ``status`` None: the first page has all unfinished campaigns, by need; then the ended, newest first.

        ``cursor``: ``next_cursor`` of the page before.
        """
        key = tenant_id, status, cursor
        if status is not None:
            return await self._pages.get(key, lambda: self._read(tenant_id, status, cursor, PAGE))
        return await self._pages.get(key, lambda: self._all(tenant_id, cursor))

    async def _all(self, tenant_id: str, cursor: int | None) -> CampaignPage:
        found = await self._read(tenant_id, None, cursor, PAGE)
        unfinished = [row for status in _UNFINISHED for row in (await self._first(tenant_id, status)).rows]
        shown = {row["id"] for row in unfinished}
        rest = [row for row in found.rows if row["id"] not in shown]
        rows = sorted([*unfinished, *rest], key=need) if cursor is None else rest
        return CampaignPage(rows, found.total, found.next_cursor)

    async def _first(self, tenant_id: str, status: CampaignStatus) -> CampaignPage:
        key = tenant_id, status, "unfinished"
        return await self._pages.get(key, lambda: self._read(tenant_id, status, None, MAX_UNFINISHED))

    async def _read(
        self, tenant_id: str, status: CampaignStatus | None, cursor: int | None, limit: int
    ) -> CampaignPage:
        found = await campaigns(self._pool, self._settings, tenant_id, status=status, limit=limit, cursor=cursor)
        return CampaignPage(found.rows, found.total, found.next_cursor)


def need(row: Document, now: datetime | None = None) -> tuple[int, int]:
    """The place of a row: stop, watch, running, paused, created, ended; the newest first within each."""
    status, level = row["status"], row["headline"]["level"]
    if status in _UNFINISHED:
        place = _LEVELS.get(level, 2 + _UNFINISHED.index(status))
    else:
        now = now or datetime.now(UTC)
        recent = row["completed_at"] is not None and now - row["completed_at"] < RECENT
        place = 0 if level == Level.STOP and recent else _FINAL
    return place, -row["id"]
