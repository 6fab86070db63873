"""Rows changed by a host's own SQL: what the engine does with such a device."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.operations import abort_campaign
from rollwave.engine.stop import skip_rest
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store import executions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Effect, Times
from tests.engine import (
    TENANT,
    Command,
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    device_row,
    devices,
    events,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.in_process import running_ticker
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def report(pool: Pool, campaign: int, word: ExecutionStatus, *, max_attempts: int = 3) -> Effect:
    async with tenant_transaction(pool, TENANT) as connection:
        [effect] = await executions.apply_reports(
            connection,
            TENANT,
            [DeviceReport(DeviceId("dev-1"), Report(CampaignId(campaign), word))],
            Times(60, 60, 600),
            max_attempts=max_attempts,
        )
    return effect


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_device_set_back_to_pending_and_not_sent_to_is_skipped_by_an_abort(
    host: Connection, pool: Pool, *, by_hand: bool
) -> None:
    campaign = await insert_campaign(host, 1)
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    await report(pool, campaign, ExecutionStatus.SUCCESS)
    await host.execute("UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL")
    if by_hand:
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED'")
        ref = CampaignRef(TenantId(TENANT), CampaignId(campaign), CampaignStatus.ABORTED)
        await skip_rest(pool, ref)
        await Upkeep(pool, Settings.load()).look_after(ref)
        assert await host.fetchval("SELECT settled_at FROM ota_campaigns"), "the engine has finished with it"
    else:
        await abort_campaign(pool, TENANT, campaign, actor="operator")
    assert await breakdown(host, campaign) == {"SKIPPED": 1}


async def test_a_command_sent_by_an_older_worker_counts_as_the_first_attempt(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 1)
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    await report(pool, campaign, ExecutionStatus.INSTALLING)
    row = await device_row(host, campaign, "dev-1")
    assert (row["attempt"], row["sent_attempt"], row["heard_attempt"]) == (1, 1, 1)
    assert row["due_at"], "its silence is noticed, and written to history, like any other device's"


async def test_a_device_sent_to_by_an_older_worker_gets_no_more_than_max_attempts(host: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(host, 1, max_attempts=1, retry_on=["reported"])
    await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING'")
    assert not (await report(pool, campaign, ExecutionStatus.FAILED)).retried
    assert await breakdown(host, campaign) == {"FAILED": 1}


def the_first_fails_once(command: Command) -> Sequence[bytes]:
    return (answer_with("FAILED") if (command.device, command.attempt) == ("first", 1) else always_succeeds)(command)


async def test_a_failed_row_set_back_by_hand_is_sent_again(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"OTA_PROGRESS_TIMEOUT": "1"}
    async with (
        devices(broker.url, the_first_fails_once) as fleet,
        worker(database, broker.url, tmp_path / "log", **settings) as running,
    ):
        campaign = await insert_campaign(
            host, ["first", "second"], max_in_flight=1, abort_threshold=1.0, abort_min_completed=2
        )
        await eventually(lambda: has_failed(host, campaign, 1), what="the first has failed")
        await host.execute(
            "UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL, error_message = NULL"
            " WHERE device_id = 'first'"
        )
        await wait_until_ended(host, campaign)
        assert [each.attempt for each in fleet.commands_of(campaign) if each.device == "first"] == [1, 2]
        assert not events(running, "ota_campaign_error")
    assert await campaign_row(host, campaign) == ("COMPLETED", 2, 0)


async def has_failed(host: Connection, campaign: int, number: int) -> bool:
    return (await campaign_row(host, campaign))[2] == number


@pytest.mark.usefixtures("listener_subscribed")
async def test_a_device_set_back_long_after_it_failed_has_its_full_time_to_answer(
    pool: Pool, host: Connection, broker: EmbeddedBroker
) -> None:
    campaign = await insert_campaign(host, 1)
    await mark_sent(host, campaign, ["dev-1"], attempt=3)
    await host.execute(
        "UPDATE ota_device_status SET status = 'PENDING', due_at = NULL, failed_attempt = 3,"
        " failed_reason = 'overdue', started_at = now() - interval '3 days'"
    )
    async with running_ticker(pool, broker.url, 0.1) as ticker:
        await ticker.tick()
    row = await device_row(host, campaign, "dev-1")
    assert (row["status"], row["attempt"], row["sent_attempt"]) == ("DOWNLOADING", 4, 4)
    assert await host.fetchval("SELECT due_at > now() + interval '1 minute' FROM ota_device_status")
