"""Deadlines stand still while nothing may be sent, so a paused campaign does not abort itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine import operations
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store import campaigns, executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from tests.engine import (
    TENANT,
    Connection,
    campaign_row,
    claim_commands,
    connect,
    device_row,
    incoming_report,
    insert_campaign,
    mark_sent,
)
from tests.in_process import long_subscribed_listener, move_times_back

HOUR, DAY = 3600, 86_400
WEEKEND = 60 * HOUR

MUTE, CHATTY = "dev-1", "dev-2"


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def listener_subscribed(pool: Pool, host: Connection) -> AsyncIterator[None]:
    """A listener that has been subscribed for long."""
    async with long_subscribed_listener(pool, host):
        yield


async def running_campaign(host: Connection, pool: Pool) -> int:
    """Each device was sent its command a moment ago, and has a progress timeout of half an hour and a day in all."""
    campaign = await insert_campaign(
        host, 4, progress_timeout=HOUR / 2, device_timeout=float(DAY), max_attempts=5, abort_threshold=0.1
    )
    await mark_sent(host, campaign, [MUTE, CHATTY])
    await host.execute("UPDATE ota_device_status SET due_at = now() + interval '30 minutes' WHERE due_at IS NOT NULL")
    await look(pool, campaign)
    return campaign


async def look(pool: Pool, campaign: int, status: CampaignStatus = CampaignStatus.RUNNING) -> None:
    """Look after the campaigns, as a worker does every few seconds."""
    where = CampaignRef(TenantId(TENANT), CampaignId(campaign), status)
    await Upkeep(pool, Settings()).look_after(where)


async def attempts_failed(host: Connection) -> int:
    number: int = await host.fetchval("SELECT count(*) FROM ota_campaign_history WHERE device_id IS NOT NULL")
    return number


async def paused_by_an_operator(pool: Pool, host: Connection, campaign: int) -> None:
    await operations.pause_campaign(pool, TENANT, campaign, actor="test")
    await move_times_back(host, campaign, WEEKEND)
    await look(pool, campaign, CampaignStatus.PAUSED)
    assert (await campaign_row(host, campaign))[0] == "PAUSED"
    assert await host.fetchval("SELECT count(*) FROM ota_device_status WHERE status = 'FAILED'") == 0
    await operations.start_campaign(pool, TENANT, campaign, actor="test")


async def paused_by_a_hosts_sql(pool: Pool, host: Connection, campaign: int) -> None:
    await host.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", campaign)
    await look(pool, campaign, CampaignStatus.PAUSED)
    await move_times_back(host, campaign, WEEKEND)
    await look(pool, campaign, CampaignStatus.PAUSED)
    assert await attempts_failed(host) == 0
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)


async def paused_by_a_hosts_sql_without_a_worker(pool: Pool, host: Connection, campaign: int) -> None:
    await host.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", campaign)
    await move_times_back(host, campaign, WEEKEND)
    await look(pool, campaign, CampaignStatus.PAUSED)
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)


async def without_a_look(_pool: Pool, host: Connection, campaign: int) -> None:
    await move_times_back(host, campaign, WEEKEND)


async def without_anybody(pool: Pool, host: Connection, campaign: int) -> None:
    """Workers start again, and look before their listener is subscribed."""
    await move_times_back(host, campaign, WEEKEND)
    await nobody_listens(host)
    await look(pool, campaign)
    await somebody_listens(host)


async def paused_after_everybody_was_away(pool: Pool, host: Connection, campaign: int) -> None:
    await move_times_back(host, campaign, WEEKEND)
    await operations.pause_campaign(pool, TENANT, campaign, actor="test")
    await operations.start_campaign(pool, TENANT, campaign, actor="test")


async def paused_by_an_older_version(pool: Pool, host: Connection, campaign: int) -> None:
    """A pause by workers of a version that did not record suspensions."""
    await host.execute("UPDATE ota_campaigns SET started_at = now() - interval '1 day' WHERE id = $1", campaign)
    await operations.pause_campaign(pool, TENANT, campaign, actor="test")
    await move_times_back(host, campaign, WEEKEND)
    await host.execute(
        "UPDATE ota_campaign_history SET at = at - make_interval(secs => $1) WHERE event = 'paused'", float(WEEKEND)
    )
    await host.execute("UPDATE ota_campaigns SET active_since = NULL, active_at = NULL WHERE id = $1", campaign)
    await look(pool, campaign, CampaignStatus.PAUSED)
    await operations.start_campaign(pool, TENANT, campaign, actor="test")


async def nobody_listens(host: Connection) -> None:
    await host.execute("UPDATE rollwave_listener_slots SET holder = 0, alive_at = now() - interval '1 hour'")


async def somebody_listens(host: Connection) -> None:
    await host.execute(
        "UPDATE rollwave_listener_slots SET alive_at = now(), holder ="
        " (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 0 AND granted"
        "  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1)"
    )


async def without_a_listener(pool: Pool, host: Connection, campaign: int) -> None:
    await nobody_listens(host)
    await look(pool, campaign)
    await move_times_back(host, campaign, WEEKEND)
    await look(pool, campaign)
    assert await attempts_failed(host) == 0
    await somebody_listens(host)


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize(
    "suspended",
    [
        paused_by_an_operator,
        paused_by_a_hosts_sql,
        paused_by_a_hosts_sql_without_a_worker,
        paused_after_everybody_was_away,
        paused_by_an_older_version,
        without_a_look,
        without_anybody,
        without_a_listener,
    ],
)
async def test_time_in_which_nothing_may_be_sent_does_not_count_towards_deadlines(
    pool: Pool, host: Connection, suspended: Callable[[Pool, Connection, int], Awaitable[None]]
) -> None:
    campaign = await running_campaign(host, pool)
    await move_times_back(host, campaign, HOUR / 4, looked_at=True)
    await suspended(pool, host, campaign)
    for _ in range(3):
        await look(pool, campaign)
    assert await attempts_failed(host) == 0, "a quarter of an hour is left"
    # A report after it extends the deadline to the time left in all, not to none.
    await Ingest(pool, Settings()).take_in([incoming_report(CHATTY, campaign, "INSTALLING")])
    await move_times_back(host, campaign, HOUR / 4 + 60, looked_at=True)
    await look(pool, campaign)
    assert await attempts_failed(host) == 1
    row = await device_row(host, campaign, MUTE)
    assert (row["status"], row["failed_reason"]) == ("DOWNLOADING", "no_answer"), "another attempt follows"
    assert (await device_row(host, campaign, CHATTY))["status"] == "INSTALLING"
    assert await campaign_row(host, campaign) == ("RUNNING", 0, 0)


@pytest.mark.usefixtures("listener_subscribed")
@pytest.mark.parametrize(
    ("column", "seconds_ago"),
    [("listening_since", HOUR / 2 - 60), ("subscribed_at", 0)],
    ids=["absent within the timeout", "has just subscribed"],
)
async def test_a_device_is_not_silent_before_a_listener_would_have_received_its_report(
    pool: Pool, host: Connection, column: str, seconds_ago: float
) -> None:
    campaign = await running_campaign(host, pool)
    await move_times_back(host, campaign, HOUR / 2 + 60, looked_at=True)
    since = f"UPDATE rollwave_listener_slots SET {column} = now() - make_interval(secs => $1)"
    await host.execute(since, seconds_ago)
    await look(pool, campaign)
    assert await attempts_failed(host) == 0
    await host.execute(since, float(DAY))
    await look(pool, campaign)
    assert await attempts_failed(host) == 2


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_host_that_ticks_once_a_minute_finds_silent_devices(pool: Pool, host: Connection) -> None:
    campaign = await running_campaign(host, pool)
    for _ in range(32):
        await move_times_back(host, campaign, 60)
        await look(pool, campaign)
    assert await attempts_failed(host) == 2


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_pause_right_after_the_first_command_extends_deadlines(pool: Pool, host: Connection) -> None:
    """No worker has looked at it since, because the worker that sent it died."""
    campaign = await insert_campaign(host, 2, progress_timeout=HOUR / 2, device_timeout=float(DAY), abort_threshold=0.1)
    async with tenant_transaction(pool, TENANT) as connection:
        locked = await campaigns.lock(connection, TenantId(TENANT), CampaignId(campaign))
        claimed = await claim_commands(connection, locked, tokens=2, fresh=2)
        times = Times(HOUR / 2, HOUR / 2, DAY)
        await executions.mark_sent(connection, TenantId(TENANT), CampaignId(campaign), claimed.commands, times)
    await paused_by_an_operator(pool, host, campaign)
    for _ in range(3):
        await look(pool, campaign)
    assert await attempts_failed(host) == 0
    assert await campaign_row(host, campaign) == ("RUNNING", 0, 0)


@pytest.mark.usefixtures("listener_subscribed")
async def test_the_device_timeout_still_ends_after_a_pause(pool: Pool, host: Connection) -> None:
    campaign = await running_campaign(host, pool)
    await host.execute(
        "UPDATE ota_campaigns SET abort_threshold = 1.0, progress_timeout = 7200 WHERE id = $1", campaign
    )

    async def reports_for(hours: int) -> dict[str, Any]:
        for _ in range(hours):
            await Ingest(pool, Settings()).take_in([incoming_report(CHATTY, campaign, "DOWNLOADING")])
            await move_times_back(host, campaign, HOUR, looked_at=True)
            await look(pool, campaign)
        return await device_row(host, campaign, CHATTY)

    for _ in range(2):
        await reports_for(11)
        await paused_by_an_operator(pool, host, campaign)
        await look(pool, campaign)
    assert (await reports_for(1))["status"] == "DOWNLOADING", "23 of 24 hours have counted"
    row = await reports_for(3)
    assert (row["status"], row["failed_reason"]) == ("FAILED", "overdue")


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_campaign_aborted_after_a_pause_still_ends(pool: Pool, host: Connection) -> None:
    campaign = await running_campaign(host, pool)
    await operations.pause_campaign(pool, TENANT, campaign, actor="test")
    await move_times_back(host, campaign, WEEKEND)
    await operations.abort_campaign(pool, TENANT, campaign, actor="test")
    for _ in range(3):
        await look(pool, campaign, CampaignStatus.ABORTED)
    assert (await device_row(host, campaign, MUTE))["status"] == "DOWNLOADING", "it may still finish"
    await move_times_back(host, campaign, HOUR, looked_at=True)
    for _ in range(2):
        await look(pool, campaign, CampaignStatus.ABORTED)
    assert await host.fetchval("SELECT settled_at IS NOT NULL FROM ota_campaigns WHERE id = $1", campaign)
