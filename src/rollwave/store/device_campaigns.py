"""Reads all campaigns of one device."""

from __future__ import annotations

from typing import NamedTuple

from rollwave.errors import NotFound
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.moments import Document, with_moments
from rollwave.store.queries import load

_sql = load("device_campaigns")


class Campaigns(NamedTuple):
    """A page of campaigns, newest first, and the ``total`` over all pages. ``next_cursor`` None: the last page."""

    rows: list[Document]
    total: int
    next_cursor: int | None


async def find(pool: Pool, tenant_id: str, device_id: str, *, limit: int, cursor: int | None = None) -> Campaigns:
    """The campaigns in which a device is or was, also one that is no longer registered.

    Raises:
        NotFound: the tenant has no such device, and no campaign has it.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        records = await connection.fetch(_sql["page"], tenant_id, device_id, cursor, limit + 1)
        known = bool(records) or cursor is not None
        if not known and not await connection.fetchval(_sql["is_registered"], tenant_id, device_id):
            raise NotFound(f"no device {device_id}", hint="List the devices to see their ids.")
        total = await connection.fetchval(_sql["count"], tenant_id, device_id)
    rows = [with_moments(record) for record in records[:limit]]
    return Campaigns(rows, total, rows[-1]["campaign_id"] if len(records) > limit else None)
