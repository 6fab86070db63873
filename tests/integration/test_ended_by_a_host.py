"""Campaigns ended by a host's own SQL: their counters and rows are corrected once, and then shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.stop import skip_rest
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.device_fields import store_fields
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.worker.tick import Ticker
from rollwave.mqtt.broker import Broker
from rollwave.settings import Settings
from rollwave.store import campaigns
from rollwave.store.database import Pool
from tests.engine import (
    TENANT,
    Connection,
    breakdown,
    campaign_ref,
    campaign_shown,
    connect,
    insert_campaign,
    mark_sent,
)

WAITING = 25


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def running(pool: Pool, host: Connection, devices: int = WAITING) -> int:
    """A campaign that the engine has seen and counted."""
    campaign = await insert_campaign(host, devices)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
    return campaign


async def work(pool: Pool) -> None:
    """Work as a worker does, until only devices are waited for."""
    upkeep = Upkeep(pool, Settings())
    for _ in range(3):
        for each in await campaigns.due(pool):
            if each.status is CampaignStatus.ABORTED:
                await skip_rest(pool, each)
            await upkeep.look_after(each)
            await store_fields(pool, each)


async def counters(host: Connection) -> dict[str, int]:
    row = await host.fetchrow(
        "SELECT pending, downloading, installing, succeeded, failed, skipped FROM ota_campaigns WHERE tenant_id = $1",
        TENANT,
    )
    assert row is not None
    return {name: number for name, number in row.items() if number}


async def shown(pool: Pool, campaign: int) -> dict[str, int]:
    """The breakdown on the campaign's page. Its counters must agree with it."""
    page = await campaign_shown(pool, TENANT, campaign)
    found: dict[str, int] = page["status_breakdown"]
    assert (page["succeeded"], page["failed"]) == (found["SUCCESS"], found["FAILED"])
    return {status: number for status, number in found.items() if number}


async def test_a_campaign_aborted_by_a_host_with_skipped_rows_is_counted(pool: Pool, host: Connection) -> None:
    campaign = await running(pool, host)
    async with host.transaction():
        await host.execute("UPDATE ota_device_status SET status = 'SKIPPED', completed_at = now()")
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', completed_at = now()")
    assert await shown(pool, campaign) == {"SKIPPED": WAITING}, "it is corrected immediately"
    await work(pool)
    assert await counters(host) == {"skipped": WAITING}
    assert await campaigns.due(pool) == []
    assert await shown(pool, campaign) == {"SKIPPED": WAITING}


async def test_a_campaign_aborted_by_a_host_keeps_its_devices_in_progress(pool: Pool, host: Connection) -> None:
    campaign = await running(pool, host, WAITING + 1)
    await mark_sent(host, campaign, ["dev-1"])
    async with host.transaction():
        await host.execute("UPDATE ota_device_status SET status = 'SKIPPED', completed_at = now() WHERE attempt = 0")
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', completed_at = now(), reconciled_at = NULL")
    await work(pool)
    await Ticker(pool, CommandSession(Broker.from_url("mqtt://localhost:1")), Settings()).tick()
    assert await counters(host) == {"skipped": WAITING, "downloading": 1}
    assert await shown(pool, campaign) == {"SKIPPED": WAITING, "DOWNLOADING": 1}


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED"])
async def test_a_campaign_that_a_host_ended_is_counted_and_no_longer_due(
    pool: Pool, host: Connection, status: str
) -> None:
    await host.execute("ALTER TABLE ota_campaigns DROP CONSTRAINT ota_campaigns_status_check")
    campaign = await running(pool, host)
    async with host.transaction():
        await host.execute(
            "UPDATE ota_device_status SET status = 'SUCCESS', completed_at = now() WHERE device_id < 'dev-2'"
        )
        await host.execute("UPDATE ota_campaigns SET status = $1, completed_at = now()", status)
    expected = {"SUCCESS": 11, "PENDING": WAITING - 11}
    assert await shown(pool, campaign) == expected, "it is corrected immediately"
    assert len(await campaigns.due(pool)) == 1
    await work(pool)
    assert await counters(host) == {"pending": WAITING - 11, "succeeded": 11}
    assert await campaigns.due(pool) == [], "its rows are left to the host"
    assert await shown(pool, campaign) == expected


async def test_rows_that_a_host_changes_after_the_end_are_shown(pool: Pool, host: Connection) -> None:
    campaign = await running(pool, host)
    await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', completed_at = now()")
    await work(pool)
    await host.execute("UPDATE ota_device_status SET status = 'SUCCESS' WHERE device_id < 'dev-2'")
    await host.execute("DELETE FROM ota_device_status WHERE device_id = 'dev-25'")
    assert await shown(pool, campaign) == {"SUCCESS": 11, "SKIPPED": WAITING - 12}


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_campaign_that_a_host_starts_again_can_be_aborted_again(pool: Pool, host: Connection) -> None:
    campaign = await running(pool, host)
    await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', completed_at = now()")
    await work(pool)
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING', completed_at = NULL")
    await host.execute("UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL")
    await host.execute("UPDATE ota_campaigns SET active_at = active_at - interval '1 minute'")
    await work(pool)
    await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', completed_at = now()")
    await work(pool)
    assert await breakdown(host, campaign) == {"SKIPPED": WAITING}
