"""Deleting a tenant or a campaign, by any login and in any way, deletes all of its rows in the engine's tables."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rollwave.domain.events import CampaignCreated
from rollwave.domain.ids import CampaignId
from rollwave.domain.role import Role
from rollwave.store import access, campaigns, events, imports, new_campaigns, quarantine
from rollwave.store.database import Pool, create_pool, tenant_transaction
from rollwave.store.migrate import migrate
from rollwave.store.quarantine import Sample
from tests.engine import Connection, campaign_ref, connect, insert_campaign
from tests.host.platform import RUNNING, Host, make_host
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

SHARED = frozenset(
    {"tenants", "devices", "device_groups", "device_group_members", "firmware_versions", "ota_campaigns"}
    | {"ota_device_status"}
)
OF_CAMPAIGNS = frozenset({"ota_campaign_waves", "ota_campaign_history", "rollwave_idempotency"})


async def kept(root: Connection, tenant: str) -> dict[str, int]:
    """The number of rows that name the tenant, by table."""
    tables = await root.fetch(
        "SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    )
    found = {
        row["name"]: await root.fetchval(f"SELECT count(*) FROM {row['name']} WHERE tenant_id = $1", tenant)
        for row in tables
    }
    return {name: number for name, number in found.items() if number}


async def work_for(pool: Pool, tenant: str, campaign: int) -> str:
    """Insert rows of the tenant into each table of the engine. Returns one of its API keys."""
    key = await access.create(pool, tenant, Role.ADMIN, expires_in=timedelta(days=1))
    begun = await imports.begin(pool, tenant, "all", actor="test")
    async with tenant_transaction(pool, tenant) as connection:
        await quarantine.keep(connection, tenant, [Sample("dev-1", "test", b"?")])
        await events.append(connection, tenant, campaign, CampaignCreated(1), actor="test")
        await events.advance(connection, tenant, "test", 1)
        await new_campaigns.keep_key(connection, tenant, f"of {campaign}", "00", CampaignId(campaign))
        await connection.execute(
            "INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number) VALUES ($1, $2, 0)", tenant, campaign
        )
        await connection.execute(
            "INSERT INTO rollwave_group_import_devices (tenant_id, import_id, device_id, described)"
            " VALUES ($1, $2, 'dev-1', false)",
            tenant,
            begun["import_id"],
        )
    return key


@pytest.fixture(params=["superuser", "owner"])
async def host(request: pytest.FixtureRequest, empty_database: str) -> Host:
    """A host of which a part has migrated."""
    host = await make_host(empty_database)
    if request.param == "superuser":
        await migrate(host.root, grant_to="host_service")
        return host
    async with connect(host.root) as root:
        await root.execute("GRANT pulse_app, rollwave_due TO host_owner")
        await root.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO host_owner, pulse_app")
    await migrate(host.owner)
    return host


@pytest.mark.parametrize("who", ["superuser", "owner"])
async def test_deleting_a_hosts_tenant_deletes_all_its_rows(host: Host, who: str) -> None:
    async with connect(host.root) as root, create_pool(host.service) as pool:
        key = await work_for(pool, "north", RUNNING)
        other = await insert_campaign(root, 2, tenant="south")
        others_key = await work_for(pool, "south", other)
        before = await kept(root, "south")
        assert (await kept(root, "north")).keys() == before.keys() | {
            "devices",
            "device_groups",
            "device_group_members",
        }
        assert len(before.keys() - SHARED) == 8
        async with connect(host.root if who == "superuser" else host.owner) as login:
            await login.execute("SET app.tenant_id = 'south'")
            assert await login.execute("DELETE FROM tenants WHERE tenant_id = 'north'") == "DELETE 1"
            assert await login.fetchval("SHOW app.tenant_id") == "south"
        assert await kept(root, "north") == {}
        assert await kept(root, "south") == before
        assert await access.verify(pool, key) is None
        assert await access.verify(pool, others_key)


async def test_a_key_of_a_deleted_tenant_is_refused(host: Host) -> None:
    """As if rows were deleted with triggers off, by a restore or by replication."""
    async with connect(host.root) as root, create_pool(host.service) as pool:
        key = await work_for(pool, "north", RUNNING)
        await root.execute("SET session_replication_role = replica")
        await root.execute("DELETE FROM tenants WHERE tenant_id = 'north'")
        assert "rollwave_api_keys" in await kept(root, "north")
        assert await access.verify(pool, key) is None


async def test_deleting_a_hosts_campaign_deletes_all_its_rows(host: Host) -> None:
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "north", RUNNING)
        async with connect(host.owner) as owner:
            assert await owner.execute("DELETE FROM ota_campaigns WHERE id = $1", RUNNING) == "DELETE 1"
        assert not OF_CAMPAIGNS & (await kept(root, "north")).keys()
        assert campaign_ref(RUNNING) not in await campaigns.due(pool)


async def test_deleting_a_tenant_needs_no_rights_on_engine_tables(host: Host) -> None:
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "north", RUNNING)
        await root.execute("GRANT DELETE ON tenants TO host_reports")
        await root.execute("CREATE POLICY reports ON tenants TO host_reports USING (true)")
        async with connect(host.reports) as login:
            await login.execute("SET search_path = pg_catalog")
            assert await login.execute("DELETE FROM public.tenants WHERE tenant_id = 'north'") == "DELETE 1"
        assert await kept(root, "north") == {}


async def test_a_session_with_row_security_off_can_delete_a_tenant(host: Host) -> None:
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "north", RUNNING)
        async with connect(host.owner) as owner:
            await owner.execute("SET row_security = off")
            await owner.execute("DELETE FROM ota_campaigns")
        assert not OF_CAMPAIGNS & (await kept(root, "north")).keys()


@pytest.mark.parametrize("table", ["tenants", "ota_campaigns"])
async def test_truncating_a_hosts_tenants_deletes_all_their_rows(host: Host, table: str) -> None:
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "north", RUNNING)
        await work_for(pool, "south", await insert_campaign(root, 2, tenant="south"))
        before = await kept(root, "south")
        references = await root.fetch(
            "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
            " AND confrelid = ANY ('{tenants, firmware_versions, ota_campaigns}'::regclass[])"
        )
        assert {name for (name,) in references} <= SHARED, "a table that is referenced cannot be truncated by itself"
        await root.execute(f"GRANT TRUNCATE ON {', '.join(SHARED)} TO host_reports")
        async with connect(host.reports) as login:
            await login.execute(f"TRUNCATE {table}, {', '.join(SHARED - {'tenants', table})}")
            if table == "tenants":
                assert await kept(root, "south") == {}
            else:
                assert (await kept(root, "south")).keys() == before.keys() - OF_CAMPAIGNS - SHARED | {"tenants"}


async def test_a_tenant_with_two_rows_exists_until_both_are_deleted(empty_database: str) -> None:
    psql(empty_database, "CREATE TABLE tenants (tenant_id varchar(64), region text)")
    psql(empty_database, "INSERT INTO tenants VALUES ('north', 'a'), ('north', 'b')")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    async with connect(empty_database) as root, create_pool(empty_database) as pool:
        await work_for(pool, "north", await insert_campaign(root, 2))
        before = await kept(root, "north")
        await root.execute("DELETE FROM tenants WHERE region = 'a'")
        assert (await kept(root, "north")).keys() == before.keys()
        await root.execute("DELETE FROM tenants")
        assert await kept(root, "north") == {}, "rows of tables that the host lacks are deleted, too"


async def test_a_host_that_owns_only_the_tenants_table_may_truncate_it(empty_database: str) -> None:
    psql(empty_database, "CREATE TABLE tenants (tenant_id text PRIMARY KEY); INSERT INTO tenants VALUES ('north')")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    async with connect(empty_database) as root, create_pool(empty_database) as pool:
        await work_for(pool, "north", await insert_campaign(root, 2))
        await root.execute("TRUNCATE tenants")
        assert await kept(root, "north") == {}


async def test_a_temporary_table_with_the_name_of_an_engine_table_is_not_touched(host: Host) -> None:
    """Otherwise a trigger of the caller would run with the rights of the tables' owner."""
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "north", RUNNING)
        async with connect(host.service) as login:
            await login.execute("SET ROLE pulse_app; SET app.tenant_id = 'north'")
            for table in ("rollwave_group_import_devices", "rollwave_idempotency"):
                await login.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM public.{table}")
            await login.execute("DELETE FROM rollwave_group_imports")
            assert await login.fetchval("SELECT count(*) FROM rollwave_group_import_devices") == 1
        assert "rollwave_group_import_devices" not in await kept(root, "north")


async def test_tenants_can_be_deleted_from_a_partitioned_table(empty_database: str) -> None:
    psql(empty_database, "CREATE TABLE tenants (tenant_id text) PARTITION BY HASH (tenant_id)")
    psql(empty_database, "CREATE TABLE only_part PARTITION OF tenants FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    psql(empty_database, "INSERT INTO tenants VALUES ('north')")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    async with connect(empty_database) as root, create_pool(empty_database) as pool:
        await work_for(pool, "north", await insert_campaign(root, 2))
        await root.execute("DELETE FROM tenants")
        assert await kept(root, "north") == {}


async def test_deleting_a_tenant_of_a_standalone_installation_deletes_all_its_rows(database: str, pool: Pool) -> None:
    async with connect(database) as root:
        campaign = await insert_campaign(root, 3)
        await root.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('north', 'dev-1')")
        await root.execute("INSERT INTO device_groups (tenant_id, group_id) VALUES ('north', 'all')")
        await root.execute("INSERT INTO device_group_members VALUES ('north', 'all', 'dev-1')")
        key = await work_for(pool, "north", campaign)
        assert len(await kept(root, "north")) == len(SHARED) + 8
        await root.execute("DELETE FROM tenants WHERE tenant_id = 'north'")
        assert await kept(root, "north") == {}
        assert await access.verify(pool, key) is None


async def test_firmware_in_use_still_cannot_be_deleted(database: str) -> None:
    async with connect(database) as root:
        await insert_campaign(root, 3)
        with pytest.raises(Exception, match="violates foreign key"):
            await root.execute("DELETE FROM firmware_versions")


async def test_the_migration_deletes_rows_of_tenants_deleted_earlier(empty_database: str) -> None:
    """On an installation from before these foreign keys."""
    host = await make_host(empty_database)
    host.migrate("--grant-to", "host_service")
    async with connect(host.root) as root, create_pool(host.service) as pool:
        await work_for(pool, "south", await insert_campaign(root, 2, tenant="south"))
        await work_for(pool, "north", RUNNING)
        await undo_later_migrations(root)
        await root.execute("SET session_replication_role = replica")  # Foreign keys are not checked.
        for table in SHARED:
            await root.execute(f"DELETE FROM {table} WHERE tenant_id = 'north'")
        await root.execute("SET session_replication_role = origin")
        before = await kept(root, "south")
        assert len(await kept(root, "north")) == 7
        await migrated_again(root, host.root)
        assert await kept(root, "north") == {}
        assert await kept(root, "south") == before


async def undo_later_migrations(root: Connection) -> None:
    """Undo the migrations that need what migration 0015 created."""
    await root.execute("""
        DROP FUNCTION rollwave_halted_tenants(), rollwave_due_campaigns_3();
        DROP TABLE rollwave_event_consumers, ota_campaign_policies, ota_campaign_segments, ota_campaign_cells,
                   ota_campaign_ranks, ota_campaign_tests, ota_campaign_test_buckets, rollwave_policies,
                   rollwave_device_fields, rollwave_brakes, rollwave_brake_history, ota_campaign_budget_values,
                   ota_campaign_budget_held, ota_campaign_points, ota_campaign_plans,
                   rollwave_console_secret;
        DROP INDEX ota_campaign_history_of_tenant, ota_campaign_history_of_campaign;
        ALTER TABLE rollwave_listener_slots DROP documents_at;
        ALTER TABLE ota_campaign_waves DROP name, DROP size, DROP state, DROP since, DROP soak_from, DROP soak_failed,
                                       DROP promoted_at, DROP promoted_by, DROP matched;
        DROP FUNCTION rollwave_due_campaigns_4(), rollwave_version_key, rollwave_labels, rollwave_labels_of,
                      rollwave_host_devices, rollwave_host_labels, rollwave_host_labels_of,
                      rollwave_record_devices, rollwave_budget_value, rollwave_unstored, rollwave_heard,
                      rollwave_registered, rollwave_heard_at, rollwave_microseconds;
        DELETE FROM rollwave_migrations WHERE version >= 19;
    """)


async def migrated_again(root: Connection, url: str) -> None:
    """Migrate again, with the rows that are there."""
    await root.execute("DELETE FROM rollwave_migrations WHERE version = 15")
    done = rollwave("migrate", env={"DATABASE_URL": url})
    assert done.returncode == 0, done.stderr


async def test_an_upgraded_installation_deletes_the_rows_of_deleted_tenants(database: str, pool: Pool) -> None:
    async with connect(database) as root:
        campaign = await insert_campaign(root, 3)
        await work_for(pool, "north", campaign)
        await undo_later_migrations(root)
        before = await kept(root, "north")
        await root.execute("UPDATE ota_campaigns SET status = 'ABORTED'")
        await migrated_again(root, database)
        assert await kept(root, "north") == before
        assert await root.fetchval("SELECT settled_at IS NULL FROM ota_campaigns"), (
            "it belongs to the engine, and is not of earlier versions"
        )
        keeping = "SELECT conrelid::regclass || ' to ' || confrelid::regclass FROM pg_constraint"
        keeping += " WHERE contype = 'f' AND confdeltype <> 'c'"
        assert [row[0] for row in await root.fetch(keeping)] == ["ota_campaigns to firmware_versions"]
        await root.execute("DELETE FROM tenants WHERE tenant_id = 'north'")
        assert await kept(root, "north") == {}
