"""Tables made by a host's own migrations or by `rollwave migrate`, and the columns that a host's rows gain."""

from __future__ import annotations

from uuid import uuid4

import pytest
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from rollwave.domain.rights import SHARED
from rollwave.engine.new_campaign import create_campaign
from rollwave.store.database import create_pool
from rollwave.store.new_campaigns import NewCampaign
from tests.engine import connect
from tests.host.platform import RUNNING, make_host
from tests.integration.test_migrate import schema
from tests.schema import at_version
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)

JSON_TYPES = {
    "bigint",  # below 2^53, which every reader of JSON can represent
    "boolean",
    "double precision",
    "double precision[]",
    "integer",
    "jsonb",
    "smallint",
    "text",
    "text[]",
    "timestamp with time zone",
}


def test_adopt_only_creates_nothing_before_the_host_has_its_tables(empty_database: str) -> None:
    psql(empty_database, "CREATE TABLE tenants (tenant_id text PRIMARY KEY); CREATE TABLE alembic_version (n text)")
    before = schema(empty_database)
    refused = rollwave("migrate", "--adopt-only", env={"DATABASE_URL": empty_database})
    assert refused.returncode == 1
    missing = ", ".join(name for name in SHARED if name != "tenants")
    assert f"missing are: {missing}" in refused.stderr
    assert "hint: Run the host's own migrations first" in refused.stderr
    assert schema(empty_database) == before


async def test_adopt_only_adopts(empty_database: str) -> None:
    host = await make_host(empty_database)
    assert "made the tables" not in host.migrate("--adopt-only")
    assert "up to date" in host.migrate("--adopt-only")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("SELECT 1", ["note: made the tables tenants, devices, device_groups", "remove them (DROP TABLE tenants"]),
        ("CREATE TABLE invoices (n int)", ["warning: made the tables", "in a database that has other tables"]),
        (
            "CREATE SCHEMA host; CREATE TABLE host.alembic_version (n text)",
            ["warning: made the tables", "another migration tool works on (it has alembic_version)"],
        ),
        ("CREATE TABLE tenants (tenant_id text PRIMARY KEY)", ["made the tables devices, device_groups"]),
    ],
    ids=["empty", "others", "migrator", "some"],
)
def test_migrate_names_tables_that_the_host_may_want_to_create(
    empty_database: str, before: str, words: list[str]
) -> None:
    psql(empty_database, before)
    done = rollwave("migrate", env={"DATABASE_URL": empty_database})
    assert done.returncode == 0, done.stderr
    for each in [*words, "hint: If the migrations of another service make these tables", "--adopt-only"]:
        assert each in done.stderr
    again = rollwave("migrate", env={"DATABASE_URL": empty_database})
    assert "made the tables" not in again.stderr + again.stdout


async def test_the_statements_in_the_hint_undo_the_migration(empty_database: str) -> None:
    output = rollwave("migrate", env={"DATABASE_URL": empty_database}).stderr
    psql(empty_database, output.partition("remove them (")[2].partition("), run")[0])
    host = await make_host(empty_database)
    assert "now at schema" in host.migrate("--adopt-only")


async def test_columns_added_to_a_hosts_rows_can_be_written_as_json(empty_database: str) -> None:
    """A host answers with SELECT *, and its framework converts the row to JSON."""
    host = await make_host(empty_database)
    async with connect(host.root) as root, create_pool(host.root) as pool:
        columns = (
            "SELECT attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = ANY ($1::regclass[]) AND attnum > 0 AND NOT attisdropped"
        )
        theirs = {tuple(row)[:2] for row in await root.fetch(columns, list(SHARED))}
        host.migrate()
        gained = [tuple(row) for row in await root.fetch(columns, list(SHARED)) if tuple(row)[:2] not in theirs]
        assert {kind for _, _, kind in gained} <= JSON_TYPES, gained
        new = NewCampaign("keyed", 2, "all", retry_on=["reported"])
        await create_campaign(pool, "north", new, actor="test", idempotency_key="k")
        for table in SHARED:
            rows = await root.fetch(f"SELECT * FROM {table}")
            assert rows
            assert JSONResponse(jsonable_encoder([dict(row) for row in rows])).status_code == 200


async def test_idempotency_keys_survive_the_migration(empty_database: str) -> None:
    host = await make_host(empty_database)
    new = NewCampaign("again", 2, "all")
    async with connect(host.root) as root:
        await at_version(root, 13)
        await root.execute(
            "UPDATE ota_campaigns SET idempotency_key = 'k', idempotency_digest = $2 WHERE id = $1",
            RUNNING,
            bytes.fromhex(new.digest()),
        )
        await root.execute("CREATE VIEW shown AS SELECT idempotency_key, idempotency_digest FROM ota_campaigns")
        host.migrate()
        assert {tuple(row) for row in await root.fetch("SELECT * FROM shown")} == {(None, None)}, (
            "it is kept for the view, and empty"
        )
        async with create_pool(host.root) as pool:
            assert await create_campaign(pool, "north", new, actor="test", idempotency_key="k") == RUNNING
            await root.execute("DELETE FROM ota_campaigns WHERE id = $1", RUNNING)
            other = await create_campaign(pool, "north", new, actor="test", idempotency_key="k")
            assert other != RUNNING, "a key whose campaign was deleted can be used again"
            assert await create_campaign(pool, "north", new, actor="test", idempotency_key="k") == other


async def test_a_tenant_in_a_hosts_table_is_created_only_by_the_host(empty_database: str) -> None:
    host = await make_host(empty_database)
    host.migrate("--grant-to", "rollwave_worker")
    async with connect(host.root) as root:
        # Even where the host's rules would allow it.
        await root.execute("CREATE POLICY anybody ON tenants USING (true); GRANT INSERT ON tenants TO pulse_app")
        made = f"tenant-{uuid4().hex[:8]}"
        refused = rollwave("apikey", "create", "--tenant", made, "--role", "admin", env={"DATABASE_URL": host.worker})
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"tenant {made} is not in the table tenants" in refused.stderr
        assert "hint: Create the tenant in that service" in refused.stderr
        assert await root.fetchval("SELECT count(*) FROM tenants WHERE tenant_id = $1", made) == 0
        known = rollwave("apikey", "create", "--tenant", "north", "--role", "admin", env={"DATABASE_URL": host.worker})
        assert known.returncode == 0, known.stderr
