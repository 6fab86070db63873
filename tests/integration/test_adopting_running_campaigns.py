"""A host's running campaign continues under the engine, and old values in the host's rows fail no device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.stop import SKIPPED_BECAUSE
from rollwave.engine.upkeep import counters
from rollwave.engine.upkeep.counters import Counters
from rollwave.engine.upkeep.look import Look, Upkeep
from rollwave.settings import Settings
from rollwave.store import campaigns, executions
from rollwave.store.database import Pool, create_pool, tenant_transaction
from rollwave.store.executions import Times
from rollwave.store.migrate import migrate
from tests.engine import (
    TENANT,
    Connection,
    always_succeeds,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    device_row,
    devices,
    events,
    incoming_report,
    insert_campaign,
    make_claims,
    subscribed_listener,
    wait_until_ended,
    worker,
)
from tests.host.platform import RUNNING, Host, make_host

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

DONE, STOPPED = 1, 2
"""The host's earlier campaigns: COMPLETED, and ABORTED with a device in progress and two pending ones."""

OVERWRITTEN = [f"dev-{number}" for number in range(5, 10)]
LEFT_IN_PROGRESS = [f"dev-{number}" for number in range(10, 18)]

SOON = {"OTA_PROGRESS_TIMEOUT": "1", "ROLLWAVE_DEVICE_TIMEOUT": "600"}
"""Silence is noticed soon. The device timeout of devices sent to days ago is over, unless it begins again."""


@pytest.fixture
async def host(empty_database: str) -> Host:
    host = await make_host(empty_database)
    await migrate(host.root, grant_to="rollwave_worker")
    return host


@pytest.fixture
async def root(host: Host) -> AsyncIterator[Connection]:
    async with connect(host.root) as connection:
        yield connection


@pytest.fixture
async def pool(host: Host) -> AsyncIterator[Pool]:
    async with create_pool(host.worker) as pool, subscribed_listener(pool):
        yield pool


async def look(
    pool: Pool, campaign: int = RUNNING, status: CampaignStatus = CampaignStatus.RUNNING, **options: Any
) -> Look:
    """Look after the campaigns, as a worker does every few seconds."""
    return await Upkeep(pool, Settings(), **options).look_after(replace(campaign_ref(campaign), status=status))


async def history(root: Connection, campaign: int = RUNNING) -> list[str]:
    rows = await root.fetch("SELECT event FROM ota_campaign_history WHERE campaign_id = $1 ORDER BY id", campaign)
    return [row["event"] for row in rows]


async def rows_of(root: Connection, *campaigns: int) -> list[tuple[Any, ...]]:
    rows = await root.fetch("SELECT * FROM ota_device_status WHERE campaign_id = ANY ($1) ORDER BY id", campaigns)
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("began", [True, False])
async def test_devices_left_in_progress_for_days_are_not_failed_at_adoption(
    host: Host, root: Connection, broker: EmbeddedBroker, tmp_path: Path, *, began: bool
) -> None:
    """``began``: the host's campaign has a started_at."""
    if not began:
        await root.execute("UPDATE ota_campaigns SET started_at = NULL WHERE id = $1", RUNNING)
    past = await rows_of(root, DONE, STOPPED)
    started = await started_at(root)
    async with (
        devices(broker.url, always_succeeds) as fleet,
        worker(host.worker, broker.url, tmp_path / "log", **SOON) as running,
    ):
        await wait_until_ended(root, RUNNING, timeout=60)
        assert sorted(fleet.times_sent(RUNNING)) == sorted([*LEFT_IN_PROGRESS, *(f"dev-{n}" for n in range(18, 25))])
        assert await campaign_row(root, RUNNING) == ("COMPLETED", 24, 0)
        [adopted] = events(running, "ota_campaign_adopted")
        assert not events(running, "ota_counters_repaired")
        assert not events(running, "ota_campaign_auto_abort")
    numbers = ("campaign_id", "tenant_id", "level", "waiting", "in_progress", "succeeded", "failed", "skipped")
    assert [adopted[name] for name in numbers] == [RUNNING, "north", "info", 7, 8, 9, 0, 0]
    assert started.items() <= (await started_at(root)).items(), "hosts display it"
    assert await rows_of(root, DONE, STOPPED) == past
    assert await campaign_row(root, STOPPED) == ("ABORTED", 0, 1)
    assert await history(root, STOPPED) == []


async def started_at(root: Connection) -> dict[str, object]:
    sql = "SELECT device_id, started_at FROM ota_device_status WHERE campaign_id = $1 AND started_at IS NOT NULL"
    return {row["device_id"]: row["started_at"] for row in await root.fetch(sql, RUNNING)}


async def test_the_device_timeout_of_an_adopted_device_begins_at_adoption(root: Connection, pool: Pool) -> None:
    await look(pool)
    for device in LEFT_IN_PROGRESS:
        row = await device_row(root, RUNNING, device)
        assert (row["attempt"], row["sent_attempt"], row["heard_attempt"]) == (1, 1, 1)
    rows = await root.fetch(
        "SELECT EXTRACT(epoch FROM d.started_at + make_interval(secs => 3600 + c.suspended_for - d.suspended_before)"
        " - now())::float8 AS left_in_all"
        " FROM ota_device_status d JOIN ota_campaigns c ON c.id = d.campaign_id"
        " WHERE d.campaign_id = $1 AND d.due_at IS NOT NULL",
        RUNNING,
    )
    assert len(rows) == len(LEFT_IN_PROGRESS)
    assert all(3540 < row["left_in_all"] <= 3601 for row in rows), rows


@pytest.mark.parametrize("together", [False, True])
async def test_a_report_that_comes_first_adopts_a_device_too(root: Connection, pool: Pool, *, together: bool) -> None:
    reports = [incoming_report("dev-10", RUNNING, "DOWNLOADING")]
    if together:
        campaign = await insert_campaign(root, 1, tenant="south")
        await root.execute("UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE campaign_id = $1", campaign)
        reports.append(incoming_report("dev-1", campaign, "DOWNLOADING", tenant="south"))
    await Ingest(pool, Settings()).take_in(reports)
    left = await root.fetchval(
        "SELECT EXTRACT(epoch FROM due_at - now())::float8 FROM ota_device_status"
        " WHERE campaign_id = $1 AND device_id = 'dev-10'",
        RUNNING,
    )
    assert left > 1700, "half an hour of silence has been counted"


@pytest.mark.parametrize("together", [False, True])
async def test_a_report_that_comes_first_does_not_judge_a_campaign_by_a_hosts_counters(
    root: Connection, pool: Pool, *, together: bool
) -> None:
    await root.execute("UPDATE ota_campaigns SET succeeded = 1, failed = 2 WHERE id = $1", RUNNING)
    reports = [incoming_report("dev-10", RUNNING, "SUCCESS" if together else "FAILED")]
    if together:
        campaign = await insert_campaign(root, 1, tenant="south")
        await root.execute("UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE campaign_id = $1", campaign)
        reports.append(incoming_report("dev-1", campaign, "DOWNLOADING", tenant="south"))
    await Ingest(pool, Settings()).take_in(reports)
    await look(pool)
    assert await campaign_row(root, RUNNING) == (("RUNNING", 10, 0) if together else ("RUNNING", 9, 1))


async def test_all_rows_are_adopted_before_the_guardrail_is_judged(root: Connection, pool: Pool) -> None:
    await root.execute(
        "UPDATE ota_device_status SET status = 'FAILED', completed_at = now(), error_message = 'bad image'"
        " WHERE campaign_id = $1 AND device_id = 'dev-1'",
        RUNNING,
    )
    await root.execute(
        "WITH finished AS (DELETE FROM ota_device_status WHERE campaign_id = $1 AND device_id = ANY ($2) RETURNING *)"
        " INSERT INTO ota_device_status SELECT * FROM finished",  # PostgreSQL comes to them last.
        RUNNING,
        OVERWRITTEN,
    )
    await root.execute(
        "UPDATE ota_campaigns SET succeeded = 8, failed = 1, abort_threshold = 0.2 WHERE id = $1", RUNNING
    )
    claims = make_claims(pool, Settings())
    assert (await look(pool, max_adopted_per_look=8)).left_behind
    assert not (await claims.claim(campaign_ref(RUNNING))).commands
    await Counters(pool, Settings()).reconcile(campaign_ref(RUNNING))
    assert await campaign_row(root, RUNNING) == ("RUNNING", 8, 1)
    assert await history(root) == []
    assert not (await look(pool, max_adopted_per_look=8)).left_behind
    assert await campaign_row(root, RUNNING) == ("RUNNING", 8, 1)
    assert await history(root) == ["finished_restored", "adopted"]
    assert (await claims.claim(campaign_ref(RUNNING))).commands


async def test_a_device_that_the_host_counted_is_not_counted_again_when_restored(root: Connection, pool: Pool) -> None:
    before = await campaign_row(root, RUNNING)
    async with tenant_transaction(pool, TENANT) as connection:
        campaign = await campaigns.lock(connection, TENANT, RUNNING)
        await counters.take_over(connection, campaign, progress_timeout=60)
    assert (await breakdown(root, RUNNING))["SUCCESS"] == 9
    assert await campaign_row(root, RUNNING) == before


async def test_a_report_during_a_pause_sets_a_deadline_without_adding_the_pause(root: Connection, pool: Pool) -> None:
    """The first device reports before a worker has looked, the second and a third one during the pause."""
    await root.execute("UPDATE ota_campaigns SET status = 'PAUSED' WHERE id = $1", RUNNING)
    south = await insert_campaign(root, 1, tenant="south")
    await root.execute("UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE campaign_id = $1", south)
    ingest = Ingest(pool, Settings())
    await ingest.take_in([incoming_report("dev-10", RUNNING, "INSTALLING")])
    await look(pool, status=CampaignStatus.PAUSED)
    await root.execute("UPDATE ota_campaigns SET active_at = active_at - interval '1 hour' WHERE id = $1", RUNNING)
    await root.execute(
        "UPDATE ota_device_status SET suspended_before = 0, due_at = NULL WHERE campaign_id = $1"
        " AND device_id IN ('dev-11', 'dev-12')",
        RUNNING,
    )
    await ingest.take_in([incoming_report("dev-11", RUNNING, "INSTALLING")])
    await ingest.take_in(
        [
            incoming_report("dev-12", RUNNING, "INSTALLING"),
            incoming_report("dev-1", south, "INSTALLING", tenant="south"),
        ]
    )
    await root.execute("UPDATE ota_campaigns SET status = 'RUNNING' WHERE id = $1", RUNNING)
    await look(pool)
    rows = await root.fetch(
        "SELECT device_id,"
        " EXTRACT(epoch FROM d.started_at - now())::float8 + c.suspended_for - d.suspended_before AS more"
        " FROM ota_device_status d JOIN ota_campaigns c ON c.id = d.campaign_id"
        " WHERE c.id = $1 AND device_id IN ('dev-10', 'dev-11', 'dev-12')",
        RUNNING,
    )
    more = {row["device_id"]: row["more"] for row in rows}
    assert -60 < more["dev-11"] <= 1, more
    assert -60 < more["dev-12"] <= 1, more
    assert 3540 < more["dev-10"] <= 3601, more


@pytest.mark.parametrize("status", [CampaignStatus.RUNNING, CampaignStatus.ABORTED])
async def test_a_skipped_device_that_a_host_sends_to_is_in_progress(
    root: Connection, pool: Pool, status: CampaignStatus
) -> None:
    await look(pool)
    async with tenant_transaction(pool, TENANT) as connection:
        await executions.skip_unsent(connection, TENANT, CampaignId(RUNNING), limit=1000, reason=SKIPPED_BECAUSE)
    await root.execute("UPDATE ota_campaigns SET status = $2 WHERE id = $1", RUNNING, status)
    await root.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', started_at = now()"
        " WHERE campaign_id = $1 AND device_id = 'dev-20'",
        RUNNING,
    )
    await look(pool, status=status)
    row = await device_row(root, RUNNING, "dev-20")
    assert (row["status"], row["completed_at"], row["error_message"]) == ("DOWNLOADING", None, None)
    counted = await root.fetchrow("SELECT skipped, downloading, installing FROM ota_campaigns WHERE id = $1", RUNNING)
    assert counted is not None
    assert tuple(counted) == (6, 5, 4)
    await Ingest(pool, Settings()).take_in([incoming_report("dev-20", RUNNING, "SUCCESS")])
    assert (await device_row(root, RUNNING, "dev-20"))["status"] == "SUCCESS"


async def test_a_finished_device_that_the_host_overwrote_is_restored(root: Connection, pool: Pool) -> None:
    await root.execute(
        "UPDATE ota_device_status SET error_message = 'no space left', progress_pct = 40"
        " WHERE campaign_id = $1 AND device_id = 'dev-5'",
        RUNNING,
    )
    await root.execute(
        "UPDATE ota_device_status SET error_message = 'finished business and no failure', progress_pct = 100"
        " WHERE campaign_id = $1 AND device_id = 'dev-6'",
        RUNNING,
    )
    await root.execute("UPDATE ota_campaigns SET abort_threshold = 0.5 WHERE id = $1", RUNNING)
    before = {device: (await device_row(root, RUNNING, device))["completed_at"] for device in OVERWRITTEN}
    await look(pool)
    rows = {device: await device_row(root, RUNNING, device) for device in OVERWRITTEN}
    assert {device: row["completed_at"] for device, row in rows.items()} == before, "it is set once"
    assert [row["status"] for row in rows.values()] == ["FAILED", *["SUCCESS"] * 4], "by its own report"
    assert await campaign_row(root, RUNNING) == ("RUNNING", 8, 1)
    assert await history(root) == ["attempt_failed", "finished_restored", "adopted"]


async def test_an_overwritten_failure_is_counted_and_recorded_once(root: Connection, pool: Pool) -> None:
    await root.execute("UPDATE ota_campaigns SET abort_threshold = 0.1 WHERE id = $1", RUNNING)
    await look(pool)
    await Ingest(pool, Settings()).take_in([incoming_report("dev-10", RUNNING, "FAILED")])
    assert await campaign_row(root, RUNNING) == ("RUNNING", 9, 1)
    await root.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', error_message = 'no space left'"
        " WHERE campaign_id = $1 AND device_id = 'dev-10'",
        RUNNING,
    )
    await look(pool)
    assert await campaign_row(root, RUNNING) == ("RUNNING", 9, 1), (
        "two failures of eleven devices would trip the guardrail"
    )
    assert (await history(root)).count("attempt_failed") == 1


async def test_counters_are_right_before_the_first_command(root: Connection, pool: Pool) -> None:
    await root.execute("UPDATE ota_campaigns SET succeeded = 0, failed = 3 WHERE id = $1", RUNNING)
    assert not (await make_claims(pool, Settings()).claim(campaign_ref(RUNNING))).commands, "no worker has looked yet"
    await look(pool)
    batch = await make_claims(pool, Settings()).claim(campaign_ref(RUNNING))
    assert [each.device_id for each in batch.commands] == [f"dev-{n}" for n in range(18, 23)]
    row = await root.fetchrow(
        "SELECT succeeded, failed, sent, pending, downloading, installing, skipped FROM ota_campaigns WHERE id = $1",
        RUNNING,
    )
    assert row is not None
    assert tuple(row) == (9, 0, 17 + 5, 7, 4, 4, 0)
    assert await history(root) == ["finished_restored", "adopted"]


async def test_no_count_is_made_before_devices_in_progress_are_adopted(root: Connection, pool: Pool) -> None:
    """A claim before the first look, or a check of its counters, must not count the campaign."""
    await make_claims(pool, Settings()).claim(campaign_ref(RUNNING))
    await Counters(pool, Settings()).reconcile(campaign_ref(RUNNING))
    assert await root.fetchval("SELECT skipped FROM ota_campaigns WHERE id = $1", RUNNING) is None
    await look(pool)
    assert await root.fetchval("SELECT skipped FROM ota_campaigns WHERE id = $1", RUNNING) == 0


async def test_the_canary_counts_devices_that_the_host_has_sent_to(root: Connection, pool: Pool) -> None:
    await root.execute("UPDATE ota_campaigns SET rollout_strategy = 'canary' WHERE id = $1", RUNNING)
    claims = make_claims(pool, Settings())
    await look(pool)
    assert not (await claims.claim(campaign_ref(RUNNING))).commands, (
        "17 devices have been sent to, and the first wave has 2"
    )
    await Ingest(pool, Settings()).take_in([incoming_report(device, RUNNING, "SUCCESS") for device in LEFT_IN_PROGRESS])
    await look(pool)
    assert len((await claims.claim(campaign_ref(RUNNING))).commands) == 5, (
        "all devices of the wave have ended, and the gate is open"
    )


async def test_real_failures_over_the_threshold_abort_it_at_adoption(root: Connection, pool: Pool) -> None:
    await root.execute(
        "UPDATE ota_device_status SET status = 'FAILED', error_message = 'bad image'"
        " WHERE campaign_id = $1 AND device_id IN ('dev-3', 'dev-4')",
        RUNNING,
    )
    await root.execute("UPDATE ota_campaigns SET succeeded = 2, failed = 2 WHERE id = $1", RUNNING)
    await look(pool)
    assert (await campaign_row(root, RUNNING))[0] == "ABORTED"


async def overwritten_by_the_old_worker(root: Connection, device: str, *, due_at: str) -> None:
    """The row as the host's old worker, which still runs, writes it later."""
    await root.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', started_at = now(), progress_pct = 100,"
        f" completed_at = now() - interval '1 second', due_at = {due_at} WHERE campaign_id = $1 AND device_id = $2",
        RUNNING,
        device,
    )


@pytest.mark.parametrize("due_at", ["NULL", "now() - interval '1 hour'"])
async def test_a_host_that_keeps_overwriting_rows_fails_no_device(root: Connection, pool: Pool, due_at: str) -> None:
    await look(pool)
    await root.execute(
        "UPDATE rollwave_listener_slots SET listening_since = now() - interval '1 day',"
        " subscribed_at = now() - interval '1 day'"
    )
    await overwritten_by_the_old_worker(root, "dev-1", due_at=due_at)
    await root.execute("UPDATE ota_campaigns SET suspended_lately = 0 WHERE id = $1", RUNNING)
    await overwritten_by_the_old_worker(root, "dev-18", due_at=due_at)
    await Ingest(pool, Settings()).take_in([incoming_report("dev-1", RUNNING, "FAILED")])
    for _ in range(3):
        await look(pool)
    assert (await device_row(root, RUNNING, "dev-1"))["status"] == "SUCCESS"
    assert await campaign_row(root, RUNNING) == ("RUNNING", 10, 0), (
        "one device was counted before, the other one was not"
    )
    found = await breakdown(root, RUNNING)
    row = await root.fetchrow("SELECT downloading, installing FROM ota_campaigns WHERE id = $1", RUNNING)
    assert row is not None
    assert (found["DOWNLOADING"], found["INSTALLING"]) == (4, 4)


async def test_a_row_that_a_host_sets_back_to_pending_starts_again(root: Connection, pool: Pool) -> None:
    await look(pool)
    await root.execute(
        "UPDATE ota_device_status SET status = 'PENDING' WHERE campaign_id = $1 AND device_id = 'dev-1'", RUNNING
    )
    commands = (await make_claims(pool, Settings()).claim(campaign_ref(RUNNING))).commands
    assert "dev-1" in {each.device_id for each in commands}
    async with tenant_transaction(pool, TENANT, generic_plans=True) as connection:
        await executions.mark_sent(connection, TENANT, RUNNING, commands, Times(60, 60, 600))
        [effect] = await executions.apply_reports(
            connection,
            TENANT,
            [DeviceReport(DeviceId("dev-1"), Report(CampaignId(RUNNING), ExecutionStatus.INSTALLING))],
            Times(60, 60, 600),
            max_attempts=3,
        )
    assert effect.applied, "its earlier result no longer counts, and its device timeout begins again"
    row = await device_row(root, RUNNING, "dev-1")
    assert row["completed_at"] is None
    assert await root.fetchval(
        "SELECT due_at > now() + interval '50 seconds' FROM ota_device_status WHERE campaign_id = $1"
        " AND device_id = 'dev-1'",
        RUNNING,
    )


async def test_ended_campaigns_are_migrated_without_adoption_also_under_forced_row_security(
    empty_database: str,
) -> None:
    host = await make_host(empty_database)
    async with connect(host.root) as root:
        await root.execute("ALTER TABLE ota_campaigns FORCE ROW LEVEL SECURITY")
        host.migrate()
        assert await root.fetchval("SELECT settled_at IS NOT NULL FROM ota_campaigns WHERE id = $1", STOPPED)
        assert await root.fetchval("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'ota_campaigns'")


async def test_a_campaign_that_a_host_inserts_later_is_adopted_when_it_is_seen(root: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(root, 4)
    await root.execute(
        "UPDATE ota_device_status SET status = 'DOWNLOADING', started_at = now() - interval '9 days'"
        " WHERE campaign_id = $1 AND device_id <> 'dev-4'",
        campaign,
    )
    await look(pool, campaign)
    left = await root.fetch(
        "SELECT started_at + make_interval(secs => 3600 - suspended_before) > now() AS any FROM ota_device_status"
        " WHERE campaign_id = $1 AND status = 'DOWNLOADING'",
        campaign,
    )
    assert [row["any"] for row in left] == [True] * 3
    assert await history(root, campaign) == ["adopted"]


async def test_devices_that_a_host_inserts_later_are_adopted(root: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(root, 0, rollout_strategy="canary", canary_percent=50.0)
    for _ in range(2):
        await look(pool, campaign)
        await Counters(pool, Settings()).reconcile(campaign_ref(campaign))
        assert not (await make_claims(pool, Settings()).claim(campaign_ref(campaign))).commands
    await root.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, started_at)"
        " SELECT 'north', $1, 'dev-' || n, CASE n WHEN 1 THEN 'DOWNLOADING' ELSE 'PENDING' END, now()"
        " FROM generate_series(1, 8) AS n",
        campaign,
    )
    await look(pool, campaign)
    assert len((await make_claims(pool, Settings()).claim(campaign_ref(campaign))).commands) == 3, (
        "half of 8 devices, and one was sent to"
    )
    assert await history(root, campaign) == ["adopted"]


async def test_a_campaign_without_sent_devices_needs_no_adoption(root: Connection, pool: Pool) -> None:
    campaign = await insert_campaign(root, 4)
    assert len((await make_claims(pool, Settings()).claim(campaign_ref(campaign))).commands) == 4
    assert await history(root, campaign) == []
