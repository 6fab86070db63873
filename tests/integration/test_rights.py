"""What `rollwave migrate` lets anybody do: tried by statements, before and after, on a host with default privileges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine import Connection, connect
from tests.host.platform import Host, make_host
from tests.host.rights import DENIED, SITUATIONS, Objects, Tried, differences, everything, tried
from tests.support import rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

AS = {"pulse_app": "pulse_app"}
"""Its own login is the host's service, which takes it on."""


@pytest.fixture
async def host(empty_database: str) -> Host:
    """The host, on a managed service that gives everything in the schema to roles that anybody may take."""
    async with connect(empty_database) as root:
        for role in ("anon", "nobody_at_all", "host_owner"):
            if not await root.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
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
        if not await root.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rollwave_due')"):
            await root.execute("CREATE ROLE rollwave_due NOLOGIN NOINHERIT")
        await root.execute("GRANT pulse_app, rollwave_due TO host_owner")
    host.migrate(url=host.owner if migrator == "owner" else host.root)


@pytest.mark.parametrize("migrator", ["root", "owner"])
async def test_nobody_may_do_more_or_less_to_a_hosts_tables(host: Host, root: Connection, migrator: str) -> None:
    theirs = await everything(root)
    before = await tried(actors(host), theirs, role=AS)
    assert before[Tried("pulse_app", "tenant north", "tenants", "DELETE")] == "0 rows"
    await migrate(host, root, migrator)
    assert differences(before, await tried(actors(host), theirs, role=AS)) == {}
