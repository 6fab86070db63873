"""A host's status columns: engine values that they refuse, and the host's own values."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.reports.outcome import Outcome
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.upkeep.look import Upkeep
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.engine import (
    Connection,
    breakdown,
    campaign_ref,
    campaign_row,
    connect,
    incoming_report,
    insert_campaign,
    mark_sent,
)
from tests.host.platform import RUNNING, make_host
from tests.in_process import ingest
from tests.integration.test_doctor import examine
from tests.metrics import sample
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


@pytest.mark.parametrize(
    ("alteration", "words"),
    [
        (
            """
            ALTER TABLE ota_device_status ADD CONSTRAINT known
                CHECK (status IN ('PENDING', 'DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED'))""",
            ["ota_device_status.status refuses SKIPPED: the constraint known", "allow 'SKIPPED'"],
        ),
        (
            "ALTER TABLE ota_campaigns ADD CONSTRAINT known CHECK (status::text ~ '^(CREATED|RUNNING|COMPLETED)$')",
            ["ota_campaigns.status refuses PAUSED, ABORTED: the constraint known"],
        ),
        (
            "ALTER TABLE ota_device_status ALTER status TYPE varchar(10)",
            ["refuses DOWNLOADING: its type character varying(10)"],
        ),
        (
            """
            CREATE DOMAIN word AS text CHECK (VALUE <> 'SKIPPED');
            ALTER TABLE ota_device_status ALTER status TYPE word""",
            ["refuses SKIPPED: its type word"],
        ),
    ],
    ids=["devices", "campaigns", "narrow", "domain"],
)
async def test_a_status_that_a_column_refuses_is_named(
    empty_database: str, broker: EmbeddedBroker, alteration: str, words: list[str]
) -> None:
    host = await make_host(empty_database, rows=False)
    psql(host.root, alteration)
    incoming_report = host.migrate(url=host.root)
    assert all(word in incoming_report for word in words), incoming_report
    assert examine(DATABASE_URL=host.root, MQTT_BROKER_URL=broker.url).says("status values", "problem", *words)


async def test_a_status_enumeration_is_refused_before_anything_is_changed(empty_database: str) -> None:
    host = await make_host(empty_database, rows=False)
    psql(
        host.root,
        "CREATE TYPE st AS ENUM ('PENDING', 'DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED');"
        "ALTER TABLE ota_device_status ALTER status DROP DEFAULT, ALTER status TYPE st USING status::st,"
        " ALTER status SET DEFAULT 'PENDING'",
    )
    env = {"DATABASE_URL": host.root}
    refused = rollwave("migrate", env=env)
    assert refused.returncode == 1
    hint = "ALTER TABLE ota_device_status ALTER COLUMN status TYPE text USING status::text"
    assert "ota_device_status.status has the type st" in refused.stderr
    assert f"hint: {hint}" in refused.stderr
    assert not psql(host.root, "SELECT to_regclass('rollwave_migrations')").strip()
    psql(host.root, hint)
    assert rollwave("migrate", env=env).returncode == 0


async def test_status_values_of_a_hosts_own_are_counted(empty_database: str, broker: EmbeddedBroker) -> None:
    host = await make_host(empty_database)
    host.migrate()
    env = {"DATABASE_URL": host.root, "MQTT_BROKER_URL": broker.url}
    assert examine(**env).says("status values", "ok")
    psql(
        host.root,
        "ALTER TABLE ota_device_status ALTER status DROP NOT NULL;"
        f"UPDATE ota_device_status SET status = CASE WHEN device_id < 'dev-2' THEN 'queued' END"
        f" WHERE campaign_id = {RUNNING} AND status = 'PENDING'",
    )
    assert examine(**env).says("status values", "warning", "queued (", "NULL (", "PENDING, DOWNLOADING")


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def test_status_values_of_a_hosts_own_stop_no_report(pool: Pool, host: Connection) -> None:
    await host.execute("ALTER TABLE ota_device_status DROP CONSTRAINT ota_device_status_status_check")
    await host.execute("ALTER TABLE ota_campaigns DROP CONSTRAINT ota_campaigns_status_check")
    await host.execute("ALTER TABLE ota_campaigns ALTER succeeded DROP NOT NULL, ALTER failed DROP NOT NULL")
    two = ["dev-1", "dev-2"]
    cancelled, archived, uncounted = [await insert_campaign(host, two, abort_threshold=1.0) for _ in range(3)]
    for campaign in (cancelled, archived, uncounted):
        await mark_sent(host, campaign, two)
    await host.execute(
        "UPDATE ota_device_status SET status = 'CANCELLED' WHERE campaign_id = $1 AND device_id = 'dev-1'", cancelled
    )
    await host.execute("UPDATE ota_campaigns SET status = 'ARCHIVED' WHERE id = $1", archived)
    await host.execute("UPDATE ota_campaigns SET succeeded = NULL, failed = NULL WHERE id = $1", uncounted)
    refused_before = sample("rollwave_reports_total", outcome=Outcome.INVALID.value)
    await ingest(
        pool,
        [incoming_report("dev-1", each, "FAILED") for each in (cancelled, archived, uncounted)]
        + [incoming_report("dev-2", each, "SUCCESS") for each in (cancelled, archived, uncounted)],
    )
    refused = sample("rollwave_reports_total", outcome=Outcome.INVALID.value) - refused_before
    assert refused == 0, "no report counts as invalid"
    assert await breakdown(host, cancelled) == {"CANCELLED": 1, "SUCCESS": 1}
    assert await campaign_row(host, archived) == ("ARCHIVED", 1, 1)
    assert await campaign_row(host, uncounted) == ("RUNNING", 1, 1)
    for campaign in (cancelled, archived, uncounted):
        await Upkeep(pool, Settings()).look_after(campaign_ref(campaign))
    assert await campaign_row(host, cancelled) == ("COMPLETED", 1, 0)
    assert await campaign_row(host, archived) == ("ARCHIVED", 1, 1)
    assert await campaign_row(host, uncounted) == ("COMPLETED", 1, 1)
