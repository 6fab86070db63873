"""The rights that `rollwave migrate` grants, found by trying statements before and after it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rollwave.domain.rights import CALLED, DEFINERS, FORGETTING, FUNCTIONS, OF_A_HOST, OWN, SHARED
from tests.engine import Connection, connect
from tests.host.platform import Host, make_host
from tests.host.rights import DENIED, Objects, Tried, all_objects, differences, try_all_statements
from tests.schema import at_version
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

AS = {"pulse_app": "pulse_app"}
"""Its login is the host's service, which may take this role."""


@pytest.fixture
async def host(empty_database: str) -> Host:
    """A host on a managed service that grants everything in the schema to roles that every login may take."""
    async with connect(empty_database) as root:
        for role in ("anon", "nobody_at_all", "host_owner"):
            await root.execute(f"CREATE ROLE {role} LOGIN")
        for maker in ("postgres", "host_owner"):
            for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
                await root.execute(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {maker} IN SCHEMA public GRANT ALL ON {kind} TO anon"
                )
    return await make_host(empty_database)


@pytest.fixture
async def root(host: Host) -> AsyncIterator[Connection]:
    async with connect(host.root) as connection:
        yield connection


def actors(host: Host) -> dict[str, str]:
    anonymous = {name: host.root.replace("postgres@", f"{name}@", 1) for name in ("anon", "nobody_at_all")}
    return {
        "pulse_app": host.service,
        "host_service": host.service,
        "host_reports": host.reports,
        "host_owner": host.owner,
        **anonymous,
    }


async def migrate(host: Host, root: Connection, migrator: str) -> None:
    if migrator == "owner":
        await root.execute("GRANT pulse_app, rollwave_due TO host_owner")
    host.migrate(url=host.owner if migrator == "owner" else host.root)


@pytest.mark.parametrize("migrator", ["root", "owner"])
async def test_migrating_changes_no_rights_on_a_hosts_tables(host: Host, root: Connection, migrator: str) -> None:
    theirs = await all_objects(root)
    before = await try_all_statements(actors(host), theirs, role=AS)
    assert before[Tried("pulse_app", "tenant north", "tenants", "DELETE")] == "0 rows"
    await migrate(host, root, migrator)
    assert differences(before, await try_all_statements(actors(host), theirs, role=AS)) == {}


async def test_rights_that_an_earlier_version_granted_are_revoked(host: Host, root: Connection) -> None:
    theirs = await all_objects(root)
    before = await try_all_statements(actors(host), theirs, role=AS)
    await at_version(root, 13)
    assert differences(before, await try_all_statements(actors(host), theirs, role=AS))
    output = host.migrate()
    assert "repaired: the policy rollwave_tenant on tenants is one of an earlier version and allows too much" in output
    assert differences(before, await try_all_statements(actors(host), theirs, role=AS)) == {}


async def test_a_pulse_app_without_rights_gets_those_that_the_engine_needs(host: Host, root: Connection) -> None:
    await root.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM pulse_app")
    await root.execute("REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM pulse_app")
    theirs = await all_objects(root)
    only = {"pulse_app": host.service}
    before = await try_all_statements(only, theirs, role=AS)
    assert set(before.values()) == {DENIED}
    host.migrate()
    after = await try_all_statements(only, theirs, role=AS)
    for table, privileges in OF_A_HOST.items():
        for privilege in ("SELECT", "INSERT north", "UPDATE tenant_id", "DELETE", "TRUNCATE"):
            outcome = after[Tried("pulse_app", "tenant north", table, privilege)]
            assert (outcome != DENIED) == (privilege.split()[0] in privileges.split()), (table, privilege, outcome)
            for situation in ("nothing set", "tenant west", "administrator"):
                assert after[Tried("pulse_app", situation, table, privilege)] in {DENIED, "0 rows"}
    for sequence in theirs.sequences:
        used = after[Tried("pulse_app", "nothing set", sequence, "USAGE")] != DENIED
        assert used == ("INSERT" in OF_A_HOST[sequence.removesuffix("_id_seq")].split()), sequence
        assert after[Tried("pulse_app", "nothing set", sequence, "UPDATE")] == DENIED


@pytest.mark.parametrize("migrator", ["root", "owner"])
async def test_only_the_engines_roles_have_rights_on_engine_tables(host: Host, root: Connection, migrator: str) -> None:
    theirs = await all_objects(root)
    await migrate(host, root, migrator)
    ours = less(await all_objects(root), theirs)
    assert ours.tables.keys() == OWN.keys()
    assert ours.functions.keys() == set(FUNCTIONS)
    assert await root.fetchval(
        "SELECT bool_and(relrowsecurity) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname = ANY ($1)",
        list(ours.tables),
    )
    outcomes = await try_all_statements(actors(host), ours, role=AS)
    engine = {"pulse_app", "host_service"}  # The second inherits from the first, as at the host.
    owner = {"host_owner"} if migrator == "owner" else set()
    others = {key: outcome for key, outcome in outcomes.items() if key.actor not in engine | owner}
    assert len(others) > 100
    assert {key: outcome for key, outcome in others.items() if outcome != DENIED} == {}
    for key, outcome in outcomes.items():
        if key.actor in engine and key.situation == "tenant north":
            assert (outcome != DENIED) == may(key), (key, outcome)


def may(key: Tried) -> bool:
    """Whether the engine, working for the tenant north, should be allowed this."""
    privilege, _, of = key.action.partition(" ")
    if key.name in FUNCTIONS:
        return key.name in CALLED
    if key.name.endswith("_seq"):
        return privilege == "USAGE"
    if privilege == "UPDATE" and key.name == "rollwave_installation":
        return of in {"id", "bound_to", "bound_at"}
    another_tenant = privilege == "INSERT" and of not in {"", "north"}
    return privilege in OWN[key.name].split() and not another_tenant


def less(all_there_is: Objects, theirs: Objects) -> Objects:
    return Objects(
        {name: columns for name, columns in all_there_is.tables.items() if name not in theirs.tables},
        [name for name in all_there_is.sequences if name not in theirs.sequences],
        {name: types for name, types in all_there_is.functions.items() if name not in theirs.functions},
    )


async def test_engine_tables_are_not_granted_by_default_privileges(empty_database: str) -> None:
    psql(empty_database, "CREATE ROLE stranger LOGIN; CREATE ROLE reader")
    psql(empty_database, "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO stranger")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    psql(empty_database, "GRANT SELECT ON ota_campaigns TO reader")
    other_login = {"stranger": empty_database.replace("postgres@", "stranger@", 1)}
    async with connect(empty_database) as root:
        found = await all_objects(root)
        assert set((await try_all_statements(other_login, found)).values()) == {DENIED}
        assert found.tables.keys() == SHARED.keys() | OWN.keys(), "each is in a list of rollwave.domain.rights"
        assert found.functions.keys() == set(FUNCTIONS), "each is in a list of rollwave.domain.rights"
        definers = await root.fetch("SELECT proname FROM pg_proc WHERE prosecdef AND proname !~ '^pg_'")
        assert {name for (name,) in definers} == {*DEFINERS, *FORGETTING}
        output = rollwave("migrate", env={"DATABASE_URL": empty_database})
        assert "up to date" in output.stdout
        assert await root.fetchval("SELECT has_table_privilege('reader', 'ota_campaigns', 'SELECT')"), (
            "rights granted on purpose stay"
        )
