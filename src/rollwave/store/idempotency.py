"""Idempotency keys: which campaign was created under which key, and what was asked for then.

A key lives as long as its campaign. A host's ``SELECT *`` shows nothing of it, so it has a table of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from rollwave.domain.ids import CampaignId
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("idempotency")


class EarlierRequest(NamedTuple):
    """The request that used a key first: the campaign that it created, and the SHA-256 of its values, in hex."""

    campaign_id: CampaignId
    digest: str


async def get(connection: Connection, tenant_id: str, key: str) -> EarlierRequest | None:
    """The request that used this key first. None: the key is unused."""
    row = await connection.fetchrow(_sql["get"], tenant_id, key)
    return EarlierRequest(row["campaign_id"], row["digest"]) if row else None


async def keep(connection: Connection, tenant_id: str, key: str, digest: str, campaign_id: CampaignId) -> None:
    """Remember the key of a campaign that was created just now. ``digest`` is the SHA-256 of its values, in hex.

    Another request may have used the key meanwhile: PostgreSQL's error about that becomes Conflict in ``refusing``.
    """
    await connection.execute(_sql["forget"], tenant_id, key)
    await connection.execute(_sql["insert"], tenant_id, key, digest, campaign_id)
