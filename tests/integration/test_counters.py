"""``succeeded`` and ``failed`` equal a GROUP BY, with duplicate reports and other writers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.stop import skip_rest
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Upkeep
from rollwave.engine.worker.worker import make_listener
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, executions, views
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.executions import Times
from tests.auditor import Auditor, auditing
from tests.engine import (
    Connection,
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    campaign_shown,
    claim_commands,
    connect,
    devices,
    events,
    insert_campaign,
    make_claims,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.support import eventually


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.mark.parametrize("seed", [1])  # Any seed will do. Add seeds that have failed.
async def test_five_fold_duplicates_in_any_order_count_once(
    seed: int, database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    dice = random.Random(seed)

    async with (
        auditing(database) as auditor,
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "log", ROLLWAVE_REPORT_BATCH="50") as running,
    ):
        both = [
            await insert_campaign(host, 80, rollout_rate=1000, abort_threshold=1.0),
            await insert_campaign(host, 80, tenant="south", rollout_rate=1000, abort_threshold=1.0, max_in_flight=40),
        ]
        for campaign, tenant, expected in zip(both, ("north", "south"), (80, 40), strict=True):
            await eventually(lambda: len(fleet.commands_of(campaign, tenant)) >= expected, what="sent")  # noqa: B023
        messages = [
            (status_topic(command.tenant, command.device), encode_report(command.campaign, status, progress))
            for command in fleet.commands
            for status, progress in [
                *(("DOWNLOADING", dice.randrange(100)) for _ in range(4)),
                ("INSTALLING", 99),
                (dice.choice(["SUCCESS", "SUCCESS", "FAILED"]), None),
            ]
        ] * 5
        dice.shuffle(messages)
        fleet.answer = always_succeeds
        for topic, payload in messages:
            fleet.send(topic, payload)
        for campaign, tenant in zip(both, ("north", "south"), strict=True):
            await wait_until_ended(host, campaign, tenant=tenant, timeout=60)
            assert (await campaign_row(host, campaign, tenant))[1:] == await counted(host, campaign, tenant)
        assert not events(running, "ota_counters_repaired"), "the counters were never wrong, so never repaired"
    assert auditor.snapshots > 20


async def counted(host: Connection, campaign: int, tenant: str = "north") -> tuple[int, int]:
    found = await breakdown(host, campaign, tenant)
    return found.get("SUCCESS", 0), found.get("FAILED", 0)


async def test_the_auditor_detects_wrong_counters_and_transitions(host: Connection) -> None:
    await insert_campaign(host, 3)
    auditor = Auditor()
    await auditor.look(host)
    assert auditor.wrong == []
    for change in (
        "UPDATE ota_campaigns SET succeeded = 1",
        "UPDATE ota_device_status SET status = 'SUCCESS' WHERE device_id = 'dev-1'",
        "UPDATE ota_device_status SET status = 'FAILED', completed_at = now() WHERE device_id = 'dev-1'",
        "UPDATE ota_campaigns SET pending = 3",
        "UPDATE ota_campaigns SET pending = NULL, skipped = 1",
        "UPDATE ota_campaigns SET status = 'COMPLETED'",
        "UPDATE ota_campaigns SET pace_used = 11",
        "UPDATE ota_campaigns SET max_in_flight = 1",
    ):
        seen = len(auditor.wrong)
        await host.execute(change)
        if "max_in_flight" in change:
            await host.execute("UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE status = 'PENDING'")
        await auditor.look(host)
        assert len(auditor.wrong) > seen, change


async def test_counters_are_reconciled_after_a_hosts_sql(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_RECONCILE_INTERVAL": "0.5"}
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **settings) as running:
        campaign = await insert_campaign(host, 30, rollout_rate=10, abort_threshold=0.5)
        await eventually(lambda: len(fleet.commands_of(campaign)) == 30, what="sent")

        async def agree(succeeded: int, failed: int) -> bool:
            row = await campaign_row(host, campaign)
            return row[1:] == (succeeded, failed) == await counted(host, campaign)

        await host.execute("UPDATE ota_device_status SET status = 'SUCCESS' WHERE device_id <= 'dev-13'")
        await eventually(lambda: agree(5, 0), what="rows set to SUCCESS are counted")
        await host.execute("UPDATE ota_campaigns SET succeeded = 999, failed = 1")
        await eventually(lambda: agree(5, 0), what="counters set by hand are mended")
        await host.execute("DELETE FROM ota_device_status WHERE device_id = 'dev-13'")
        await eventually(lambda: agree(4, 0), what="a deleted row is counted no more")
        assert events(running, "ota_counters_repaired")
        assert (await campaign_row(host, campaign))[0] == "RUNNING"
        await host.execute("UPDATE ota_device_status SET status = 'FAILED' WHERE device_id LIKE 'dev-2%'")
        await ends_aborted_on(host, campaign)


async def test_a_device_claimed_and_then_skipped_causes_no_drift(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 3)
    await host.execute("UPDATE ota_device_status SET attempt = 1, due_at = now() WHERE device_id = 'dev-1'")
    await host.execute("UPDATE ota_campaigns SET status = 'ABORTED', sent = 1, reconciled_at = NULL")
    await skip_rest(pool, campaign_ref(campaign))
    await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
    assert await breakdown(host, campaign) == {"SKIPPED": 3}
    assert await host.fetchval("SELECT reconciled_at IS NOT NULL FROM ota_campaigns")
    assert await host.fetch("SELECT * FROM ota_campaign_history WHERE event = 'counters_repaired'") == []


async def test_rows_that_wait_for_the_campaigns_lock_are_counted_by_their_later_state(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 4)
    await counted_as(host, pending=4)
    async with tenant_transaction(pool, "north") as connection:
        held = await campaigns.lock(connection, "north", campaign)
        claim = await claim_commands(connection, held, tokens=2, fresh=2)
    times = executions.Times(60, 60, 600)

    async def mark() -> None:
        async with tenant_transaction(pool, "north", generic_plans=True) as connection:
            await executions.mark_sent(connection, "north", campaign, claim.commands, times)

    async def skip() -> None:
        await skip_rest(pool, campaign_ref(campaign))

    for work, moved in ((mark, {"downloading": 2}), (skip, {"skipped": 2})):
        async with host.transaction():
            await counted_as(host, pending=40)
            waiting = asyncio.create_task(work())
            await eventually(lambda: waits_for_a_lock(host), what="it waits for the campaign's row")
        await waiting
        row = await host.fetchrow("SELECT pending, downloading, installing, skipped FROM ota_campaigns")
        assert row is not None
        assert dict(row) == {"pending": 38, "downloading": 0, "installing": 0, "skipped": 0} | moved


async def counted_as(host: Connection, *, pending: int) -> None:
    await host.execute("UPDATE ota_campaigns SET pending = $1, downloading = 0, installing = 0, skipped = 0", pending)


@pytest.mark.parametrize("first", ["upkeep", "claim"])
async def test_waves_are_planned_from_the_existing_rows(first: str, pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 60, rollout_strategy="canary", canary_percent=5.0)
    await counted_as(host, pending=1000)  # Since then, a host has removed most of them.
    if first == "upkeep":
        await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    else:
        await make_claims(pool, Settings()).claim(campaign_ref(campaign))
    waves = await host.fetch("SELECT up_to FROM ota_campaign_waves ORDER BY number")
    assert [each["up_to"] for each in waves] == [3, None]


@pytest.mark.parametrize(
    "columns",
    [{"targeted_devices": 1}, {"status": "ABORTED"}, {"status": "COMPLETED"}],
    ids=["being targeted", "aborted", "completed"],
)
async def test_no_wave_is_planned_before_targeting_has_ended_or_after_the_campaign_has(
    columns: dict[str, Any], pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 3, **columns)
    await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await host.fetchval("SELECT count(*) FROM ota_campaign_waves") == 0


async def waits_for_a_lock(host: Connection) -> bool:
    waits: bool = await host.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    return waits


async def test_two_workers_that_find_the_same_difference_repair_it_once(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 4)
    await counted_as(host, pending=1)
    async with tenant_transaction(pool, "north") as connection:
        found = await counters.compare(connection, "north", campaign)
        # Devices that change meanwhile change the counters, too, and are no difference.
        await executions.skip_unsent(connection, "north", CampaignId(campaign), limit=1, reason="test")
        held = await campaigns.lock(connection, "north", campaign)
        assert [await counters.repair(connection, held, found) for _ in range(2)] == [True, False]
    assert tuple(await stored_counters(host)) == (3, 0, 0, 1)


async def test_reports_are_ingested_while_counters_are_verified(
    database: str, host: Connection, pool: Pool, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, comparing, go_on = counters.compare, [], asyncio.Event()

    async def takes_long(*which: Any) -> counters.Comparison:
        comparing.append(which)
        await go_on.wait()
        return await compare(*which)

    monkeypatch.setattr(counters, "compare", takes_long)
    settings = Settings(MQTT_BROKER_URL=broker.url, DATABASE_URL=database)
    ids = [await insert_campaign(host, 1) for _ in range(4)]
    listener = make_listener(pool, settings)
    listening = asyncio.create_task(listener.run())
    try:
        await eventually(lambda: listener.presence.subscribed, timeout=20, what="subscribed")
        async with devices(broker.url) as fleet:
            for campaign in ids:
                await mark_sent(host, campaign, ["dev-1"])
                fleet.report("dev-1", campaign, "SUCCESS")
                await eventually(lambda: arrived(host, campaign), timeout=20, what=f"{campaign} is counted")  # noqa: B023
            await eventually(lambda: bool(comparing), what="verified meanwhile")
            assert await host.fetchval("SELECT count(*) FROM ota_campaigns WHERE status = 'COMPLETED'") == 0
            go_on.set()
            for campaign in ids:
                await wait_until_ended(host, campaign)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def arrived(host: Connection, campaign: int) -> bool:
    return (await campaign_row(host, campaign))[1:] == (1, 0)


async def stored_counters(host: Connection) -> asyncpg.Record:
    row = await host.fetchrow("SELECT pending, downloading, installing, skipped FROM ota_campaigns")
    assert row is not None
    return row


async def test_an_uncounted_campaign_shows_counts_from_its_rows(pool: Pool, host: Connection) -> None:
    campaign = await insert_campaign(host, 4)
    await host.execute("UPDATE ota_device_status SET status = 'SKIPPED' WHERE device_id = 'dev-1'")
    rows = {"PENDING": 3, "DOWNLOADING": 0, "INSTALLING": 0, "SUCCESS": 0, "FAILED": 0, "SKIPPED": 1}
    assert await shown(pool, campaign) == (rows, 4, 1)
    await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
    assert tuple(await stored_counters(host)) == (3, 0, 0, 1)
    assert await host.fetch("SELECT * FROM ota_campaign_history") == [], "nothing was wrong"
    assert await shown(pool, campaign) == (rows, 4, 1)
    await host.execute("UPDATE ota_campaigns SET pending = 30, downloading = -1")
    assert await shown(pool, campaign) == (rows | {"PENDING": 30}, 31, 1), (
        "computed from the counters, never below zero"
    )


async def test_a_first_count_blocks_no_other_transaction(
    pool: Pool, host: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await insert_campaign(host, 4)
    compare = counters.compare

    async def overtaken(*which: Any) -> counters.Comparison:
        found = await compare(*which)
        async with tenant_transaction(pool, "north") as connection:
            await executions.skip_unsent(connection, "north", CampaignId(campaign), limit=1, reason="test")
            assert await counters.count_pending(connection, "north", campaign) == 3
        rows = {"PENDING": 3, "DOWNLOADING": 0, "INSTALLING": 0, "SUCCESS": 0, "FAILED": 0, "SKIPPED": 1}
        assert await shown(pool, campaign) == (rows, 4, 1), "equal to the rows while they are counted"
        return found

    monkeypatch.setattr(counters, "compare", overtaken)
    await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
    assert tuple(await stored_counters(host)) == (3, 0, 0, 1)


async def shown(pool: Pool, campaign: int) -> tuple[dict[str, int], int, int]:
    page = await campaign_shown(pool, "north", campaign)
    every = await views.devices(pool, "north", campaign, status=None, limit=9)
    skipped = await views.devices(pool, "north", campaign, status=ExecutionStatus.SKIPPED, limit=9)
    return page["status_breakdown"], every.total, skipped.total


@pytest.mark.parametrize(
    ("devices", "ended"),
    [("SUCCESS", "status = 'COMPLETED', succeeded = 4"), ("SKIPPED", "status = 'ABORTED', settled_at = now()")],
    ids=["completed", "settled"],
)
async def test_a_campaign_ended_by_an_older_worker_shows_counts_from_its_rows(
    pool: Pool, host: Connection, devices: str, ended: str
) -> None:
    campaign = await insert_campaign(host, 4)
    await counted_as(host, pending=4)
    await host.execute("UPDATE ota_device_status SET status = $1", devices)
    await host.execute(f"UPDATE ota_campaigns SET {ended}")
    breakdown, _, _ = await shown(pool, campaign)
    assert {status: number for status, number in breakdown.items() if number} == {devices: 4}


async def ends_aborted_on(host: Connection, campaign: int) -> None:
    async def aborted() -> bool:
        return (await campaign_row(host, campaign))[0] == "ABORTED"

    await eventually(aborted, what="failures set by hand trip the guardrail")


async def test_counters_are_correct_before_a_campaign_completes(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    settings = {"ROLLWAVE_RECONCILE_INTERVAL": "60"}
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, 10)
        await eventually(lambda: len(fleet.commands_of(campaign)) == 10, what="sent")
        for number in range(1, 8):
            fleet.report(f"dev-{number}", campaign, "SUCCESS")
        await eventually(lambda: has_counted(host, campaign, 7), what="seven")
        await host.execute("UPDATE ota_device_status SET status = 'SUCCESS' WHERE status <> 'SUCCESS'")
        await wait_until_ended(host, campaign)
    assert await campaign_row(host, campaign) == ("COMPLETED", 10, 0)


async def has_counted(host: Connection, campaign: int, succeeded: int) -> bool:
    return (await campaign_row(host, campaign))[1] == succeeded


async def test_a_row_set_back_to_pending_runs_again(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """A host gives a device another chance: from every status, and with no attempt left."""
    settings = {"OTA_PROGRESS_TIMEOUT": "0.5", "OTA_MAX_ATTEMPTS": "1", "ROLLWAVE_RECONCILE_INTERVAL": "0.5"}
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", **settings):
        campaign = await insert_campaign(host, 6, abort_threshold=1.0)
        await host.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status)"
            " VALUES ('north', $1, 'keeps-it-open', 'DOWNLOADING')",
            campaign,
        )
        await eventually(lambda: has_failed(host, campaign, 6), what="all silent")
        fleet.answer = always_succeeds
        async with host.transaction():
            # From now on, devices answer slowly.
            again = "status = 'RUNNING', completed_at = NULL, progress_timeout = 600"
            await host.execute(f"UPDATE ota_campaigns SET {again}")
            await host.execute(
                "UPDATE ota_device_status SET status = 'PENDING', completed_at = NULL, error_message = NULL"
                " WHERE device_id LIKE 'dev-%'"
            )
        await eventually(lambda: has_counted(host, campaign, 6), timeout=20, what="sent to again")


async def has_failed(host: Connection, campaign: int, number: int) -> bool:
    return (await breakdown(host, campaign)).get("FAILED", 0) >= number


async def test_a_host_can_pause_abort_and_start_a_campaign_by_sql(
    database: str, host: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with devices(broker.url) as fleet, worker(database, broker.url, tmp_path / "log", OTA_TICK_INTERVAL="0.3"):
        campaign = await insert_campaign(host, 60, rollout_rate=5)
        other = await insert_campaign(host, 60, rollout_rate=5, tenant="south")
        await eventually(lambda: len(fleet.commands_of(campaign)) >= 5, what="some commands are sent")
        await host.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", campaign)
        sent = len(fleet.commands_of(campaign))
        await eventually(lambda: len(fleet.commands_of(other, "south")) >= 25, what="the other goes on")
        assert len(fleet.commands_of(campaign)) <= sent + 5, "commands claimed before may still be sent"
        paused_at = len(fleet.commands_of(campaign))
        for command in fleet.commands_of(campaign):
            fleet.report(command.device, campaign, "SUCCESS")
        await eventually(lambda: has_counted(host, campaign, paused_at), what="reports are still processed")
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", campaign)
        await eventually(lambda: len(fleet.commands_of(campaign)) > paused_at, what="started again")
        await host.execute("UPDATE ota_campaigns SET status = 'ABORTED' WHERE id = $1", campaign)
        for command in fleet.commands_of(campaign):
            fleet.report(command.device, campaign, "SUCCESS")

        async def skipped() -> bool:
            return "PENDING" not in await breakdown(host, campaign)

        await eventually(skipped, what="the remaining devices are skipped")
        assert (await campaign_row(host, campaign))[0] == "ABORTED"


@pytest.mark.parametrize("postgres", ["debian"], indirect=True)
@pytest.mark.parametrize("work", ["mark_sent", "release", "apply_reports"])
async def test_rows_are_locked_in_one_order_whatever_collation_a_hosts_column_has(
    work: str, pool: Pool, host: Connection
) -> None:
    await host.execute('ALTER TABLE ota_device_status ALTER COLUMN device_id TYPE text COLLATE "und-x-icu"')
    campaign = await insert_campaign(host, ["a", "B"])
    async with tenant_transaction(pool, "north") as connection:
        locked = await campaigns.lock(connection, "north", campaign)
        claim = await claim_commands(connection, locked, tokens=2, fresh=2)
    if work == "apply_reports":
        await mark_sent(host, campaign, ["a", "B"])
    times = Times(60, 60, 600)
    commands = sorted(claim.commands, key=lambda each: each.device_id.lower())

    async def write() -> None:
        async with tenant_transaction(pool, "north", generic_plans=True) as connection:
            if work == "mark_sent":
                await executions.mark_sent(connection, "north", CampaignId(campaign), commands, times)
            elif work == "release":
                await executions.release(connection, "north", CampaignId(campaign), commands, delay=0, refusal=None)
            else:
                report = Report(CampaignId(campaign), ExecutionStatus.SUCCESS, 100)
                reports = [DeviceReport(each.device_id, report) for each in commands]
                await executions.apply_reports(connection, "north", reports, times, max_attempts=3)

    async with host.transaction():
        await host.execute("SELECT FROM ota_device_status WHERE device_id = 'B' FOR UPDATE")
        writing = asyncio.create_task(write())
        await eventually(lambda: waits_for_a_lock(host), what="it waits for B")
        free = await host.fetch("SELECT FROM ota_device_status WHERE device_id = 'a' FOR UPDATE SKIP LOCKED")
    await writing
    assert len(free) == 1, "B comes first, and a is not locked yet"
