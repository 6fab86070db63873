"""Idempotency keys: which campaign was created under which key, and what was asked for then.

A key lives as long as its campaign. A host's ``SELECT *`` shows nothing of it, so it has a table of its own.
"""

from __future__ import annotations

from rollwave.domain.ids import CampaignId
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("idempotency")


async def get(connection: Connection, tenant_id: str, key: str) -> tuple[CampaignId, str] | None:
    """The campaign that was created under this key, and the digest of what was asked for, in hex.

    None: the key is unused.
    """
    row = await connection.fetchrow(_sql["get"], tenant_id, key)
    return (row["campaign_id"], row["digest"]) if row else None


async def keep(connection: Connection, tenant_id: str, key: str, digest: str, campaign_id: CampaignId) -> None:
    """Remember the key of a campaign that was created just now. ``digest`` is in hex.

    Raises:
        asyncpg.UniqueViolationError: another request has used the key meanwhile.
    """
    await connection.execute(_sql["forget"], tenant_id, key)
    await connection.execute(_sql["insert"], tenant_id, key, digest, campaign_id)
