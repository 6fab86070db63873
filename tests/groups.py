"""Groups of registered devices, and campaigns over them that are targeted in small batches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rollwave.domain.ids import CampaignId
from rollwave.engine.new_campaign import create_campaign
from rollwave.store.database import Pool
from rollwave.store.new_campaigns import NewCampaign
from tests.engine import TENANT, UNUSED_VERSION, Connection, connect

BATCH = 10


def device_names(first: int, last: int) -> list[str]:
    """``dev-00001``, ``dev-00002`` …"""
    return [f"dev-{number:05}" for number in range(first, last + 1)]


async def add_members(host: Connection, device_ids: list[str], *, kind: str = "gateway") -> None:
    """Register devices of this type and put them into the group ``all``."""
    await host.execute("INSERT INTO tenants (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING", TENANT)
    await host.execute(
        "INSERT INTO device_groups (tenant_id, group_id) VALUES ($1, 'all') ON CONFLICT DO NOTHING", TENANT
    )
    await host.execute(
        "INSERT INTO devices (tenant_id, device_id, device_type) SELECT $1, unnest($2::text[]), $3",
        *(TENANT, device_ids, kind),
    )
    await host.execute(
        "INSERT INTO device_group_members (tenant_id, group_id, device_id) SELECT $1, 'all', unnest($2::text[])",
        *(TENANT, device_ids),
    )


async def create(
    host: Connection, pool: Pool, *, group: str = "all", fits: str | None = None, first_batch: int = BATCH, **rules: Any
) -> CampaignId:
    """Create a campaign over the group. Its first ``first_batch`` devices are targeted immediately."""
    firmware = await host.fetchval(
        "INSERT INTO firmware_versions (tenant_id, version, file_url, device_type)"
        f" SELECT $1::text, {UNUSED_VERSION}, 'https://a.invalid/f', $2 RETURNING id",
        *(TENANT, fits),
    )
    new = NewCampaign("spring", firmware, group, rollout_rate=100_000, **rules)
    return await create_campaign(pool, TENANT, new, actor="test", first_batch=first_batch)


@asynccontextmanager
async def targeting_held_after_first_batch(database: str) -> AsyncIterator[None]:
    """Target only the first devices of a large group: later batches wait, holding the campaign's row lock."""
    async with connect(database) as host:
        await host.execute("""
            CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF current_user = 'pulse_app' AND EXISTS (SELECT FROM ota_device_status) THEN
                    PERFORM pg_advisory_xact_lock(1);
                END IF;
                RETURN NULL;
            END $$;
            CREATE OR REPLACE TRIGGER hold BEFORE INSERT ON ota_device_status EXECUTE FUNCTION hold();
        """)
        await host.execute("SELECT pg_advisory_lock(1)")
        yield


async def targeting_progress(host: Connection, campaign: int) -> tuple[int, int | None, str | None]:
    """The campaign's (total, targeted so far, last device targeted)."""
    row = await host.fetchrow(
        "SELECT total_devices, targeted_devices, targeted_up_to FROM ota_campaigns WHERE id = $1", campaign
    )
    assert row is not None
    return row["total_devices"], row["targeted_devices"], row["targeted_up_to"]


async def targeted(host: Connection, campaign: int) -> list[str]:
    """The campaign's devices, in the order in which they will be sent to."""
    rows = await host.fetch("SELECT device_id FROM ota_device_status WHERE campaign_id = $1 ORDER BY id", campaign)
    return [row["device_id"] for row in rows]
