"""A host's own tables, rows and logins, before and after ``rollwave migrate`` adopts them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.engine.operations import start_campaign
from rollwave.errors import Conflict
from rollwave.store import firmware
from rollwave.store.database import create_pool
from rollwave.store.queries import load
from tests import groups, placing_statements
from tests.engine import (
    Connection,
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    device_row,
    devices,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.support import eventually, free_port, rollwave, rollwave_running

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

HOST_TABLES = """
CREATE TABLE tenants (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL UNIQUE,
    name VARCHAR(200) NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT now()
);
CREATE TABLE devices (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL REFERENCES tenants (tenant_id) ON DELETE CASCADE,
    device_id VARCHAR(100) NOT NULL,
    name VARCHAR(200),
    last_seen TIMESTAMP,
    UNIQUE (tenant_id, device_id)
);
"""

MORE_HOST_TABLES = """
CREATE TABLE device_groups (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL,
    group_id VARCHAR(64) NOT NULL,
    name VARCHAR(200)
);
CREATE TABLE device_group_members (
    tenant_id VARCHAR(64) NOT NULL,
    group_id VARCHAR(64) NOT NULL,
    device_id VARCHAR(100) NOT NULL
);
CREATE TABLE firmware_versions (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL REFERENCES tenants (tenant_id),
    version VARCHAR(50) NOT NULL,
    description TEXT,
    file_url TEXT NOT NULL,
    file_size_bytes BIGINT,
    checksum_sha256 VARCHAR(64),
    device_type VARCHAR(50),
    created_at TIMESTAMP DEFAULT now(),
    created_by VARCHAR(100)
);
CREATE TABLE ota_campaigns (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL,
    name VARCHAR(200) NOT NULL,
    firmware_version_id INTEGER NOT NULL REFERENCES firmware_versions (id),
    target_group_id VARCHAR(64),
    rollout_strategy VARCHAR(20) DEFAULT 'linear',
    rollout_rate INTEGER DEFAULT 10,
    abort_threshold FLOAT DEFAULT 0.1,
    status VARCHAR(20) NOT NULL DEFAULT 'CREATED',
    total_devices INTEGER DEFAULT 0,
    succeeded INTEGER DEFAULT 0,
    failed INTEGER DEFAULT 0,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    created_at TIMESTAMP DEFAULT now(),
    created_by VARCHAR(100)
);
CREATE TABLE ota_device_status (
    id SERIAL PRIMARY KEY,
    tenant_id VARCHAR(64) NOT NULL,
    campaign_id INTEGER NOT NULL REFERENCES ota_campaigns (id),
    device_id VARCHAR(100) NOT NULL,
    status VARCHAR(20) NOT NULL DEFAULT 'PENDING',
    progress_pct INTEGER DEFAULT 0,
    error_message VARCHAR(255),
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    created_at TIMESTAMP DEFAULT now(),
    UNIQUE (tenant_id, campaign_id, device_id)
);
CREATE INDEX idx_ota_device_status_campaign ON ota_device_status (campaign_id, status);
"""

HOST_ROWS = """
INSERT INTO tenants (tenant_id, name) VALUES ('north', 'North'), ('south', 'South');
INSERT INTO devices (tenant_id, device_id, name)
    SELECT tenant_id, 'dev-' || n, 'Device ' || n FROM tenants, generate_series(1, 12) AS n;
INSERT INTO device_groups (tenant_id, group_id) VALUES ('north', 'all');
INSERT INTO device_group_members SELECT tenant_id, 'all', device_id FROM devices WHERE tenant_id = 'north';
INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256, created_by)
    VALUES ('north', '1.0', 'https://files.invalid/1', repeat('a', 64), 'host'),
           ('north', '2.0', 'https://files.invalid/2', NULL, NULL),
           ('south', '9.0', 'https://files.invalid/9', '', 'host');
INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, target_group_id, rollout_rate, abort_threshold,
                           status, total_devices, succeeded, failed, started_at, completed_at, created_by)
    VALUES ('north', 'old', 1, 'all', 10, 0.1, 'COMPLETED', 1, 1, 0, now() - '2 days'::interval, now(), 'host'),
           ('north', 'halfway', 2, 'all', 100, 0.5, 'RUNNING', 12, 3, 1, now() - '1 hour'::interval, NULL, 'host'),
           ('south', 'later', 3, NULL, NULL, NULL, 'CREATED', 0, 0, 0, NULL, NULL, NULL);
INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, progress_pct, error_message,
                               started_at, completed_at)
    VALUES ('north', 1, 'dev-1', 'SUCCESS', 100, NULL, now() - '2 days'::interval, now() - '1 day'::interval),
           ('north', 2, 'dev-1', 'SUCCESS', 100, NULL, now() - '1 hour'::interval, now()),
           ('north', 2, 'dev-2', 'SUCCESS', 100, NULL, now() - '1 hour'::interval, now()),
           ('north', 2, 'dev-3', 'SUCCESS', 100, NULL, now() - '1 hour'::interval, now()),
           ('north', 2, 'dev-4', 'FAILED', 40, 'no space left', now() - '1 hour'::interval, now()),
           ('north', 2, 'dev-5', 'DOWNLOADING', 30, NULL, now() - '1 hour'::interval, NULL),
           ('north', 2, 'dev-6', 'DOWNLOADING', 0, NULL, NULL, NULL),
           ('north', 2, 'dev-7', 'INSTALLING', 100, NULL, now() - '1 hour'::interval, NULL);
INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
    SELECT 'north', 2, 'dev-' || n FROM generate_series(8, 12) AS n;
"""

CONTRACT = {
    "tenants": "tenant_id",
    "devices": "tenant_id, device_id",
    "device_groups": "tenant_id, group_id",
    "device_group_members": "tenant_id, group_id, device_id",
    "firmware_versions": "id, tenant_id, version, description, file_url, file_size_bytes, checksum_sha256,"
    " device_type, created_at, created_by",
    "ota_campaigns": "id, tenant_id, name, firmware_version_id, target_group_id, rollout_strategy, rollout_rate,"
    " abort_threshold, status, total_devices, succeeded, failed, started_at, completed_at, created_at, created_by",
    "ota_device_status": "id, tenant_id, campaign_id, device_id, status, progress_pct, error_message, started_at,"
    " completed_at, created_at",
}
HALFWAY = 2


@dataclass(frozen=True)
class Host:
    """A database made by a host: its owner, an application's login with all rights, and a login for workers."""

    root: str
    owner: str
    application: str
    runner: str

    def migrate(self, *arguments: str, url: str | None = None) -> str:
        done = rollwave("migrate", *arguments, env={"DATABASE_URL": url or self.root})
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


async def make_host(database: str, sql: str) -> Host:
    def login(name: str) -> str:
        return database.replace("postgres@", f"{name}@", 1)

    name = database.partition("@/")[2].partition("?")[0]
    async with connect(database) as root:
        for role in ("host_owner", "host_app", "runner"):
            await root.execute(f"CREATE ROLE {role} LOGIN")
        await root.execute(f"ALTER DATABASE {name} OWNER TO host_owner")
    async with connect(login("host_owner")) as owner:
        await owner.execute(sql)
        await owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO host_app")
        await owner.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO host_app")
    return Host(database, login("host_owner"), login("host_app"), login("runner"))


@pytest.fixture
async def host(empty_database: str) -> Host:
    return await make_host(empty_database, HOST_TABLES + MORE_HOST_TABLES + HOST_ROWS)


@pytest.fixture
async def root(host: Host) -> AsyncIterator[Connection]:
    async with connect(host.root) as connection:
        yield connection


async def contents(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the seven tables, with the contract's columns."""
    return {
        table: [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY {columns}")]
        for table, columns in CONTRACT.items()
    }


async def test_adoption_changes_no_row_and_the_hosts_statements_still_work(host: Host, root: Connection) -> None:
    before = await contents(root)
    assert "now at schema" in host.migrate()
    assert await contents(root) == before
    assert "up to date" in host.migrate()
    assert await contents(root) == before
    for url in (host.owner, host.application):
        async with connect(url) as login:
            assert await contents(login) == before
            await work_as_before(login)
            assert await contents(login) == before


async def work_as_before(login: Connection) -> None:
    """Run a host's usual statements on its tables, and remove their effects."""
    transaction = login.transaction()
    await transaction.start()
    campaign = await login.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id) VALUES ('south', 'new', 3) RETURNING id"
    )
    await login.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) VALUES ('south', $1, 'dev-1')", campaign
    )
    await login.execute("INSERT INTO tenants (tenant_id, name) VALUES ('west', 'West')")
    await login.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('west', 'dev-1')")
    for change in (
        "UPDATE ota_device_status SET status = 'FAILED', error_message = 'by hand' WHERE tenant_id = 'south'",
        "UPDATE ota_campaigns SET status = 'PAUSED' WHERE name = 'new'",
        "UPDATE tenants SET name = 'Far west' WHERE tenant_id = 'west'",
        "DELETE FROM tenants WHERE tenant_id = 'west'",
        "DELETE FROM ota_device_status WHERE tenant_id = 'south'",
    ):
        assert await login.execute(change) == f"{change.split()[0]} 1", change
    await transaction.rollback()


async def test_a_campaign_that_the_host_started_completes_after_adoption(
    host: Host, root: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    host.migrate("--grant-to", "runner")
    async with (
        devices(broker.url, always_succeeds) as fleet,
        worker(host.runner, broker.url, tmp_path / "log", ROLLWAVE_RECONCILE_INTERVAL="0.5"),
    ):
        await eventually(lambda: len(fleet.commands) == 5, what="those that were PENDING are sent to")
        fleet.report("dev-5", HALFWAY, "SUCCESS")
        fleet.report("dev-6", HALFWAY, "INSTALLING", progress=50)
        fleet.report("dev-4", HALFWAY, "SUCCESS")
        fleet.report("dev-1", HALFWAY, "FAILED")
        await fleet.wait_until_delivered()
        await eventually(lambda: is_installing(root), what="a row left DOWNLOADING takes a report")
        fleet.report("dev-6", HALFWAY, "SUCCESS")
        fleet.report("dev-7", HALFWAY, "FAILED")
        await wait_until_ended(root, HALFWAY)
        assert sorted(each.device for each in fleet.commands) == [f"dev-{n}" for n in (10, 11, 12, 8, 9)]
        assert {each.attempt for each in fleet.commands} == {1}
    assert await campaign_row(root, HALFWAY) == ("COMPLETED", 10, 2)
    assert await breakdown(root, HALFWAY) == {"SUCCESS": 10, "FAILED": 2}
    row = await device_row(root, HALFWAY, "dev-5")
    assert row["started_at"] < row["completed_at"], "a host's started_at is kept"
    assert await root.fetchval("SELECT count(*) FROM ota_campaigns WHERE status = 'CREATED'") == 1


async def is_installing(root: Connection) -> bool:
    return bool((await device_row(root, HALFWAY, "dev-6"))["status"] == "INSTALLING")


async def test_a_long_device_error_is_cut_to_the_hosts_column(
    host: Host, root: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    host.migrate("--grant-to", "runner")
    async with devices(broker.url) as fleet, worker(host.runner, broker.url, tmp_path / "log"):
        body = f'{{"campaign_id": {HALFWAY}, "status": "FAILED", "error": "{"x" * 900}"}}'
        fleet.send("tenant/north/device/dev-7/ota/status", body.encode())
        await eventually(lambda: has_failed(root, "dev-7"), what="failed")
    assert (await device_row(root, HALFWAY, "dev-7"))["error_message"].startswith("xxx")


async def has_failed(root: Connection, device: str) -> bool:
    return bool((await device_row(root, HALFWAY, device))["status"] == "FAILED")


async def test_with_forced_row_security_the_host_needs_a_tenant_too(
    host: Host, root: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    before = await contents(root)
    host.migrate("--force-rls", "--grant-to", "runner")
    assert "up to date" in host.migrate("--force-rls")
    assert await contents(root) == before
    for url in (host.owner, host.application):
        async with connect(url) as login:
            assert not any((await contents(login)).values())
            await login.execute("SET app.tenant_id = 'north'")
            found = await contents(login)
            assert found == {
                table: [row for row in rows if row[CONTRACT[table].split(", ").index("tenant_id")] == "north"]
                for table, rows in before.items()
            }
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('south', 'forged')")
    async with devices(broker.url, always_succeeds) as fleet, worker(host.runner, broker.url, tmp_path / "log"):
        for device in ("dev-5", "dev-6", "dev-7"):
            fleet.report(device, HALFWAY, "SUCCESS")
        await wait_until_ended(root, HALFWAY)


async def test_pulse_app_sees_only_its_tenant_right_after_adoption(host: Host, root: Connection) -> None:
    host.migrate()
    for table in CONTRACT:
        async with root.transaction():
            await root.execute("SET LOCAL ROLE pulse_app")
            assert await root.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_a_hosts_own_policies_stay_in_force(host: Host, root: Connection) -> None:
    await root.execute("ALTER TABLE devices ENABLE ROW LEVEL SECURITY")
    await root.execute("CREATE POLICY mine ON devices USING (tenant_id = 'south' OR current_user = 'host_owner')")
    host.migrate()
    async with connect(host.application) as login:
        assert await login.fetchval("SELECT string_agg(DISTINCT tenant_id, ',') FROM devices") == "south"
    async with root.transaction():
        await root.execute("SET LOCAL ROLE pulse_app; SET LOCAL app.tenant_id = 'north'")
        assert await root.fetchval("SELECT string_agg(DISTINCT tenant_id, ',') FROM devices") == "north"


async def test_a_table_with_duplicate_versions_is_adopted_and_accepts_no_new_ones(host: Host, root: Connection) -> None:
    await root.execute(
        "INSERT INTO firmware_versions (tenant_id, version, file_url, device_type)"
        " VALUES ('north', '2.0', 'https://files.invalid/2', NULL), ('north', '2.0', 'https://files.invalid/2b', '')"
    )
    before = await contents(root)
    host.migrate("--grant-to", "runner")
    assert await contents(root) == before
    assert not await root.fetchval("SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'rollwave_firmware_version')")
    given = {"checksum_sha256": None, "file_size_bytes": None, "device_type": None, "description": None}
    async with create_pool(host.runner) as pool:
        row, new = await firmware.register(
            pool, "north", version="2.0", file_url="https://files.invalid/2b", actor="ci", **given
        )
        assert (row["file_url"], new) == ("https://files.invalid/2b", False)
        with pytest.raises(Conflict, match=r"2\.0"):
            await firmware.register(
                pool, "north", version="2.0", file_url="https://files.invalid/2c", actor="ci", **given
            )
    assert await contents(root) == before


async def test_unique_versions_stay_unique_after_adoption(host: Host, root: Connection) -> None:
    host.migrate()
    assert await root.fetchval("SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'rollwave_firmware_version')")


async def test_every_statement_can_be_prepared_on_adopted_tables(host: Host, root: Connection) -> None:
    host.migrate()
    for file in (files("rollwave.store") / "sql").iterdir():
        for name, sql in load(file.name.removesuffix(".sql")).items():
            if placing_statements.is_part(sql):
                continue
            try:
                await root.prepare(sql)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{file.name}: {name}: {error}")
    assert await placing_statements.statements(root, "north", HALFWAY, "all")


async def test_the_api_works_on_adopted_tables(host: Host, tmp_path: Path) -> None:
    host.migrate("--grant-to", "runner")
    key = rollwave("apikey", "create", "--tenant", "north", "--role", "admin", env={"DATABASE_URL": host.runner})
    assert key.returncode == 0, key.stderr
    port = free_port()
    env = {"DATABASE_URL": host.runner, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}"}
    async with (
        rollwave_running("serve", "--port", str(port), log=tmp_path / "log", env=env) as serving,
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/api/v1/customer",
            headers={"Authorization": f"Bearer {key.stdout.strip()}"},
        ) as client,
    ):
        await eventually(lambda: "api_listening" in serving.output(), what="serving")
        found = (await client.get(f"/ota/campaigns/{HALFWAY}")).json()
        assert found["status_breakdown"]["SUCCESS"] == found["succeeded"] == 3
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", found["started_at"])
        assert (await client.get("/firmware")).json()["total"] == 2
        assert (await client.put("/devices/dev-99", json={"device_type": "pump"})).is_success
        assert (await client.put("/device-groups/few", json={"device_ids": ["dev-1", "dev-99"]})).is_success
        firmware = await client.post(
            "/firmware", json={"version": "3.0", "file_url": "https://files.invalid/f", "checksum_sha256": "ab" * 32}
        )
        assert firmware.status_code == 201, firmware.text
        created = await client.post(
            "/ota/campaigns",
            json={"name": "api", "firmware_version_id": firmware.json()["id"], "target_group_id": "few"},
        )
        assert created.status_code == 201, created.text
        listed = (await client.get(f"/ota/campaigns/{created.json()['id']}/devices")).json()
        assert [each["device_id"] for each in listed["devices"]] == ["dev-1", "dev-99"]
        answers = (
            await client.get("/ota/campaigns/99999999999999999999"),
            await client.get("/ota/campaigns/4000000000"),
        )
        assert all(answer.status_code in {404, 422} for answer in answers), [each.text for each in answers]


async def test_a_large_group_in_adopted_tables_is_targeted_in_batches(
    host: Host, root: Connection, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    host.migrate("--grant-to", "runner")
    everyone = groups.device_names(1, 35)
    await root.execute("INSERT INTO device_groups (tenant_id, group_id) VALUES ('north', 'many')")
    await root.execute(
        "INSERT INTO device_group_members (tenant_id, group_id, device_id) SELECT 'north', 'many', unnest($1::text[])",
        everyone,
    )
    async with create_pool(host.runner) as pool:
        campaign = await groups.create(root, pool, group="many")
        await start_campaign(pool, "north", campaign, actor="test")
    assert await groups.targeted(root, campaign) == everyone[: groups.BATCH]
    async with devices(broker.url, always_succeeds), worker(host.runner, broker.url, tmp_path / "log"):
        await wait_until_ended(root, campaign)
    assert await groups.targeted(root, campaign) == everyone
    assert await groups.targeting_progress(root, campaign) == (35, None, None)


async def test_adoption_adds_the_tables_that_the_host_lacks(
    empty_database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    half = await make_host(
        empty_database, HOST_TABLES + "INSERT INTO tenants (tenant_id, name) VALUES ('north', 'North')"
    )
    half.migrate("--grant-to", "runner")
    async with connect(half.root) as root:
        forced = await root.fetch(
            "SELECT relname FROM pg_class WHERE relforcerowsecurity AND relnamespace = 'public'::regnamespace"
        )
        assert {row["relname"] for row in forced} >= CONTRACT.keys() - {"tenants", "devices"}
        assert not {row["relname"] for row in forced} & {"tenants", "devices"}
        async with connect(half.application) as login:
            await login.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('north', 'dev-1')")
            assert await login.fetchval("SELECT name FROM tenants") == "North"
        async with devices(broker.url, always_succeeds), worker(half.runner, broker.url, tmp_path / "log"):
            await root.execute("ALTER TABLE tenants ALTER name SET DEFAULT ''")
            await wait_until_ended(root, await insert_campaign(root, 12))


async def test_a_table_owner_without_superuser_can_adopt(host: Host, root: Connection) -> None:
    before = await contents(root)
    await root.execute("GRANT pulse_app, rollwave_due TO host_owner")
    host.migrate(url=host.owner)
    assert await contents(root) == before
    async with connect(host.owner) as login:
        assert await contents(login) == before
