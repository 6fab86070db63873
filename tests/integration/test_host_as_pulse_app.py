"""A host that works as ``pulse_app`` itself, and one that changes its policies after its tables were adopted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.rights import SHARED
from tests.engine import Connection, connect
from tests.host.platform import Host, make_host
from tests.host.rights import all_objects, differences, try_all_statements
from tests.support import free_port, psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

AS = {"pulse_app": "pulse_app"}
TAKEN = "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM pulse_app"
ALL = "SELECT, INSERT, UPDATE, DELETE"


@pytest.fixture
async def host(empty_database: str) -> Host:
    return await make_host(empty_database)


@pytest.fixture
async def root(host: Host) -> AsyncIterator[Connection]:
    async with connect(host.root) as connection:
        await connection.execute("CREATE ROLE app_rw")
        yield connection


GIVEN = {
    "by another role": (
        f"{TAKEN}; GRANT {ALL} ON ALL TABLES IN SCHEMA public TO app_rw;"
        " ALTER ROLE pulse_app INHERIT; GRANT app_rw TO pulse_app"
    ),
    "with everybody": f"{TAKEN}; GRANT {ALL} ON ALL TABLES IN SCHEMA public TO PUBLIC",
    "on columns": f"{TAKEN}; GRANT SELECT (tenant_id) ON {', '.join(SHARED)} TO pulse_app",
    "as the owner": "; ".join(f"ALTER TABLE {table} OWNER TO pulse_app" for table in SHARED),
}


@pytest.mark.parametrize("way", GIVEN)
async def test_the_hosts_own_policies_still_apply_to_it(host: Host, root: Connection, way: str) -> None:
    await root.execute(GIVEN[way])
    async with connect(host.service) as service:
        await service.execute("SET ROLE pulse_app; SET app.is_admin = 'on'")
        before = [await service.fetchval(f"SELECT count(tenant_id) FROM {table}") for table in SHARED]
        assert before[0] > 0, "the tenants of an administrator"
        host.migrate("--grant-to", "rollwave_worker")
        assert [await service.fetchval(f"SELECT count(tenant_id) FROM {table}") for table in SHARED] == before
    assert "up to date" in host.migrate()
    keys = rollwave("apikey", "list", "--tenant", "north", env={"DATABASE_URL": host.worker})
    assert keys.returncode == 0, keys.stderr


async def test_a_grant_on_columns_of_tenants_gives_no_further_rights(host: Host, root: Connection) -> None:
    await root.execute(f"{TAKEN}; GRANT INSERT (tenant_id), SELECT ON tenants TO pulse_app")
    host.migrate()
    assert not await root.fetchval("SELECT has_table_privilege('pulse_app', 'tenants', 'INSERT')")


WITHOUT = "; ".join(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in SHARED)
"""The host's policies exist, and have no effect."""

LATER = "tenant_id = current_setting('host.tenant', true)"


async def test_policies_that_the_host_creates_later_have_effect(host: Host, root: Connection) -> None:
    await root.execute(WITHOUT)
    host.migrate("--grant-to", "rollwave_worker")
    async with connect(host.reports) as reports:
        number = await reports.fetchval("SELECT count(*) FROM devices")
        await root.execute(
            f"ALTER TABLE devices ENABLE ROW LEVEL SECURITY; CREATE POLICY later ON devices USING ({LATER})"
        )
        fault = "the policy rollwave_host on devices gives all roles access"
        env = {"DATABASE_URL": host.root, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}"}
        assert fault in rollwave("doctor", env=env).stdout
        keys = rollwave("apikey", "list", "--tenant", "north", env={"DATABASE_URL": host.worker})
        assert keys.returncode == 0, "the engine works the whole time"
        assert f"repaired: {fault}" in host.migrate()
        assert await reports.fetchval("SELECT count(*) FROM devices") == 0
        await reports.execute("SET host.tenant = 'north'")
        assert 0 < await reports.fetchval("SELECT count(*) FROM devices") < number
    assert "up to date" in host.migrate()
    async with connect(host.worker) as worker:
        await worker.execute("SET ROLE pulse_app; SET app.tenant_id = 'north'")
        assert await worker.fetchval("SELECT count(*) FROM devices") > 0


async def test_policies_that_had_no_effect_before_adoption_have_none_after(host: Host, root: Connection) -> None:
    await root.execute(WITHOUT)
    host_objects = await all_objects(root)
    logins = {"host_reports": host.reports, "host_owner": host.owner}
    before = await try_all_statements(logins, host_objects, role=AS)
    host.migrate()
    assert "up to date" in host.migrate()
    assert differences(before, await try_all_statements(logins, host_objects, role=AS)) == {}


async def test_a_login_without_create_on_the_schema_is_told_who_can_grant_it(empty_database: str) -> None:
    name = empty_database.partition("@/")[2].partition("?")[0]
    for login in ("schema_owner", "migrates"):
        psql(empty_database, f"CREATE ROLE {login} LOGIN CREATEROLE")
    psql(
        empty_database,
        f"""
        GRANT pulse_app, rollwave_due TO migrates WITH ADMIN OPTION;
        CREATE SCHEMA app AUTHORIZATION schema_owner;
        ALTER ROLE migrates IN DATABASE {name} SET search_path = app;
        GRANT EXECUTE ON FUNCTION pg_control_system() TO migrates WITH GRANT OPTION
        """,
    )
    env = {"DATABASE_URL": empty_database.replace("postgres@", "migrates@", 1)}
    enough = "GRANT USAGE, CREATE ON SCHEMA app TO migrates WITH GRANT OPTION"
    for given in ("", "GRANT USAGE ON SCHEMA app TO migrates", "GRANT USAGE, CREATE ON SCHEMA app TO migrates"):
        psql(empty_database, given)
        done = rollwave("migrate", env=env)
        assert done.returncode == 1, given
        assert "Migrate as schema_owner, who owns the schema" in done.stderr
        assert enough in done.stderr, done.stderr
    psql(empty_database, enough)
    done = rollwave("migrate", env=env)
    assert done.returncode == 0, done.stderr
