"""A host's status columns: words of the engine's that they refuse, and words of their own."""

from __future__ import annotations

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from tests.host.platform import RUNNING, make_host
from tests.integration.test_doctor import examine
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


@pytest.mark.parametrize(
    ("alteration", "words"),
    [
        (
            """
            ALTER TABLE ota_device_status ADD CONSTRAINT known
                CHECK (status IN ('PENDING', 'DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED'))""",
            ["ota_device_status.status does not take SKIPPED: the constraint known", "allow 'SKIPPED'"],
        ),
        (
            "ALTER TABLE ota_campaigns ADD CONSTRAINT known CHECK (status::text ~ '^(CREATED|RUNNING|COMPLETED)$')",
            ["ota_campaigns.status does not take PAUSED, ABORTED: the constraint known"],
        ),
        (
            "ALTER TABLE ota_device_status ALTER status TYPE varchar(10)",
            ["does not take DOWNLOADING: its type character varying(10)"],
        ),
        (
            """
            CREATE DOMAIN word AS text CHECK (VALUE <> 'SKIPPED');
            ALTER TABLE ota_device_status ALTER status TYPE word""",
            ["does not take SKIPPED: its type word"],
        ),
    ],
    ids=["devices", "campaigns", "narrow", "domain"],
)
async def test_a_status_that_a_column_refuses_is_named(
    empty_database: str, broker: EmbeddedBroker, alteration: str, words: list[str]
) -> None:
    host = await make_host(empty_database, rows=False)
    psql(host.root, alteration)
    said = host.migrate(url=host.root)
    assert all(word in said for word in words), said
    assert examine(DATABASE_URL=host.root, MQTT_BROKER_URL=broker.url).says("status words", "problem", *words)


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
    assert examine(**env).says("status words", "ok")
    psql(
        host.root,
        "ALTER TABLE ota_device_status ALTER status DROP NOT NULL;"
        f"UPDATE ota_device_status SET status = CASE WHEN device_id < 'dev-2' THEN 'queued' END"
        f" WHERE campaign_id = {RUNNING} AND status = 'PENDING'",
    )
    assert examine(**env).says("status words", "warning", "queued (", "NULL (", "PENDING, DOWNLOADING")
