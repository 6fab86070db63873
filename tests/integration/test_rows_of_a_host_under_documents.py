"""What a host's SQL does to a campaign under a policy document: rows without a place, and another revision in force."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import pytest

from rollwave.engine.retry import retry_failed
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.settings import Settings
from rollwave.store import counters, executions
from rollwave.store.database import Pool, tenant_transaction
from tests.engine import TENANT, Connection, campaign_ref, connect, incoming_report, make_claims
from tests.in_process import ingest, long_subscribed_listener
from tests.integration.test_policy_waves import insert_campaign, status_of

SETTINGS = Settings()


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture(autouse=True)
async def listener(pool: Pool, host: Connection) -> AsyncIterator[None]:
    async with long_subscribed_listener(pool, host):
        yield


async def look(pool: Pool, campaign: int, times: int = 3) -> None:
    """Compare the counters with the rows, and look at the campaign as a worker does."""
    ref = campaign_ref(campaign)
    for _ in range(times):
        await Counters(pool, SETTINGS).verify(ref)
        found = await Upkeep(pool, SETTINGS).look_after(ref)
        if found.being_targeted:
            await Targeter(pool).target(ref)
        if found.unplaced:
            await Targeter(pool).place_inserted(ref)


async def send(pool: Pool, campaign: int) -> set[str]:
    """Claim devices, and record that the broker has their commands."""
    batch = await make_claims(pool, SETTINGS).claim(campaign_ref(campaign))
    if batch.commands:
        async with tenant_transaction(pool, TENANT, generic_plans=True) as connection:
            await executions.mark_sent(connection, TENANT, campaign, batch.commands, batch.times)
    return {each.device_id for each in batch.commands}


async def report(pool: Pool, campaign: int, devices: Collection[str], status: str) -> None:
    await ingest(pool, [incoming_report(each, campaign, status) for each in sorted(devices)])


async def agree(pool: Pool, campaign: int) -> bool:
    """Whether counters, cells and budgets are what the rows say."""
    async with tenant_transaction(pool, TENANT) as connection:
        return (await counters.compare(connection, TENANT, campaign)).agree


async def waves_of_devices(host: Connection, campaign: int) -> dict[str, int]:
    """The wave of each device that has a place."""
    rows = await host.fetch(
        "SELECT device_id, (position >> 44) - 1 AS wave FROM ota_device_status WHERE campaign_id = $1 AND segment <> 0",
        campaign,
    )
    return {row["device_id"]: row["wave"] for row in rows}


async def test_devices_that_a_host_has_sent_to_and_retried_ones_get_a_place(pool: Pool, host: Connection) -> None:
    """They count for budgets, waves and caps, are sent to again, and the campaign ends."""
    sites = {"first": "a", "second": "b", "working": "b", "set-back": "c", "failed": "d"}
    document = {
        "order": "id",
        "waves": [{"name": "canary", "size": 1}, {"name": "rest", "select": "site != c"}],
        "guardrails": [],
        "budgets": [{"per": "site", "max_in_flight": 1}],
    }
    campaign = await insert_campaign(host, document, {each: {"site": sites[each]} for each in ("first", "second")})
    await look(pool, campaign)
    for device, columns in {
        "working": "'INSTALLING', 0, NULL",
        "set-back": "'PENDING', 1, NULL",
        "failed": "'FAILED', 0, now()",
    }.items():
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ($1, $2, $3::text::jsonb)",
            *(TENANT, device, json.dumps({"site": sites[device]})),
        )
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, completed_at)"
            f" VALUES ($1, $2, $3, {columns})",
            *(TENANT, campaign, device),
        )
    await look(pool, campaign)
    assert (await retry_failed(pool, TENANT, campaign, actor="test")).devices == 1
    await look(pool, campaign, times=1)
    assert await waves_of_devices(host, campaign) == {
        each: 0 if each == "first" else 1 for each in sites
    }, "the first wave is full, and a device in flight is not skipped"
    assert await agree(pool, campaign)
    assert await send(pool, campaign) == {"first", "set-back", "failed"}
    await report(pool, campaign, {"first", "set-back", "failed"}, "SUCCESS")
    await look(pool, campaign)
    assert not await send(pool, campaign), "a device of the same site is in flight"
    for _ in range(2):  # it is silent until its deadline, and then until its next attempt is due
        await host.execute("UPDATE ota_campaigns SET deadlines_from = NULL, suspended_lately = 0")
        await host.execute(
            "UPDATE ota_device_status SET due_at = now() - interval '1 s' WHERE device_id = 'working' AND due_at > now()"
        )
        await look(pool, campaign, times=1)
    assert await send(pool, campaign) == {"working"}
    await report(pool, campaign, {"working"}, "SUCCESS")
    await look(pool, campaign)
    assert await send(pool, campaign) == {"second"}
    await report(pool, campaign, {"second"}, "SUCCESS")
    await look(pool, campaign)
    assert await status_of(host, campaign) == "COMPLETED"
    assert await agree(pool, campaign)
