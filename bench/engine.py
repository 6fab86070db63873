"""The engine's own statements, called one batch at a time, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from bench.load import Key
from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine.dispatch.claim import Claims
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.counters import Counters
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Claimed, Times

_TIMES = Times(1800.0, 1800.0, 86_400.0)


class Engine:
    """One campaign's batches: claimed, marked, applied."""

    def __init__(self, pool: Pool, key: Key, batch: int) -> None:
        settings = Settings().model_copy(update={"claim_batch": batch})
        self.pool = pool
        self.key = key
        self.ref = CampaignRef(TenantId(key.tenant), CampaignId(key.campaign), CampaignStatus.RUNNING)
        self._claims = Claims(pool, settings, Counters(pool, settings).count, steps=1)
        self._ingest = Ingest(pool, settings)

    async def claim(self) -> Sequence[Claimed]:
        """The next batch of devices, leased."""
        return (await self._claims.claim(self.ref)).commands

    async def mark(self, claimed: Sequence[Claimed]) -> None:
        """As if the broker had acknowledged them."""
        async with tenant_transaction(self.pool, self.key.tenant, generic_plans=True) as connection:
            await executions.mark_sent(connection, *self.key, claimed, _TIMES)

    async def apply(self, claimed: Sequence[Claimed], status: str) -> None:
        """As if each had reported this."""
        body = encode_report(self.key.campaign, status)
        no_handle = cast("Any", None)  # nothing is acknowledged
        await self._ingest.take_in(
            [
                Incoming(
                    status_topic(self.key.tenant, each.device_id), body, retain=False, attempt=None, handle=no_handle
                )
                for each in claimed
            ]
        )
