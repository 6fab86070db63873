"""A host's threshold column of another type: its value is the number that was written."""

from __future__ import annotations

from collections import Counter

import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.store import campaigns, counters, many_tenants
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import campaign_shown, connect, insert_campaign

WRITTEN = (0.1, 0.7, 1 / 3, 0.30000000000000004)


@pytest.mark.parametrize("column", ["double precision", "real", "numeric", "numeric(4, 3)"])
async def test_an_abort_threshold_is_read_as_it_was_stored(database: str, pool: Pool, column: str) -> None:
    async with connect(database) as host:
        await host.execute(
            f"ALTER TABLE ota_campaigns ALTER abort_threshold TYPE {column}, ALTER canary_percent TYPE {column}"
        )
        for threshold in WRITTEN[: 4 if column == "double precision" else 2]:
            campaign = CampaignId(await insert_campaign(host, 1, status="CREATED"))
            await host.execute(f"UPDATE ota_campaigns SET abort_threshold = {threshold!r}, canary_percent = 2.5")
            tally = Counter({(campaign, ExecutionStatus.FAILED): 1})
            async with tenant_transaction(pool, "north") as connection:
                found = await campaigns.get(connection, "north", campaign)
                counted = await counters.count(connection, "north", tally)
            async with many_tenants.transaction(pool) as connection:
                also = await many_tenants.count(connection, {TenantId("north"): tally})
            shown = await campaign_shown(pool, "north", campaign)
            assert (
                found.threshold == counted[0].threshold == also[0][1].threshold == shown["abort_threshold"] == threshold
            )
            assert found.canary_percent == shown["canary_percent"] == 2.5
