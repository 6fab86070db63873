"""Stores what the executions of an ended campaign say about its devices: their versions, and when they were heard."""

from __future__ import annotations

import time

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.timing import TURN_SECONDS
from rollwave.store import labels
from rollwave.store.database import Pool, tenant_transaction

MAX_DEVICES_PER_BATCH = 5000
"""Maximum number of devices stored in one transaction."""


async def store_fields(pool: Pool, ref: CampaignRef, *, batch: int = MAX_DEVICES_PER_BATCH) -> bool | None:
    """Store them for one turn, in batches, each in a transaction of its own. Whatever is left is stored later.

    Returns whether all are stored; None: there was nothing to store.
    """
    turn_ends = time.monotonic() + TURN_SECONDS
    done: bool | None = None
    while not done and time.monotonic() < turn_ends:
        async with tenant_transaction(pool, ref.tenant_id) as connection:
            unstored = await labels.unstored(connection, ref.tenant_id, ref.campaign_id)
            if unstored is None:
                return done
            done = await labels.store(connection, ref.tenant_id, ref.campaign_id, unstored, limit=batch)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
    return done
