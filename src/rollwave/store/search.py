"""Finds campaigns, devices, groups and firmware by the beginning of their ids, or by name."""

from __future__ import annotations

from dataclasses import dataclass

from rollwave.domain.ids import MAX_BIGINT
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.moments import Document
from rollwave.store.queries import load

_sql = load("search")

MAX_FOUND = 10
"""Maximum number of objects of each kind."""

MAX_LOOKED_AT = 2000
"""Maximum number of rows of each kind that are looked at: the newest campaigns and firmware, the next ids."""


@dataclass(frozen=True, slots=True)
class Found:
    """At most ``MAX_FOUND`` objects of each kind."""

    campaigns: list[Document]
    devices: list[str]
    groups: list[str]
    firmware: list[Document]


async def find(pool: Pool, tenant_id: str, text: str) -> Found:
    """Campaigns with this number or this text in their names; devices, groups and firmware that begin with it.

    The case of letters counts in ids only.
    """
    number = int(text) if text.isascii() and text.isdecimal() and int(text) <= MAX_BIGINT else None
    async with tenant_transaction(pool, tenant_id) as connection:
        campaigns = [
            dict(row)
            for row in await connection.fetch(_sql["campaigns"], tenant_id, number, text, MAX_LOOKED_AT, MAX_FOUND)
        ]
        if number is not None and not any(each["id"] == number for each in campaigns):  # it may be an old one
            exact = await connection.fetch(_sql["campaign"], tenant_id, number)
            campaigns = [*map(dict, exact), *campaigns][:MAX_FOUND]
        devices = await connection.fetch(_sql["devices"], tenant_id, text, MAX_LOOKED_AT, MAX_FOUND)
        groups = await connection.fetch(_sql["groups"], tenant_id, text, MAX_LOOKED_AT, MAX_FOUND)
        firmware = await connection.fetch(_sql["firmware"], tenant_id, text, MAX_LOOKED_AT, MAX_FOUND)
    return Found(
        campaigns,
        [row["device_id"] for row in devices],
        [row["group_id"] for row in groups],
        [dict(row) for row in firmware],
    )
