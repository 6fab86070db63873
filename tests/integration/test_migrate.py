"""``rollwave migrate``: run again, run concurrently, refused, and run while workers work."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.store.schema_change import LOCK_WAIT_SECONDS
from tests.engine import always_succeeds, connect, devices, insert_campaign, wait_until_ended, worker
from tests.schema import at_version
from tests.support import Running, eventually, psql, rollwave, rollwave_running


def schema(url: str) -> str:
    """Every relation, column, policy, function and constraint."""
    return psql(
        url,
        """
        SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
            WHERE table_schema = 'public' ORDER BY 1, 2;
        SELECT tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies ORDER BY 1, 2;
        SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1;
        SELECT conrelid::regclass, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;
        SELECT relname, relrowsecurity, relforcerowsecurity, relacl::text FROM pg_class
            WHERE relnamespace = 'public'::regnamespace ORDER BY 1;
        SELECT proname, proacl::text, pg_get_function_result(oid) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace ORDER BY 1
        """,
    )


def test_a_migration_can_be_repeated(empty_database: str) -> None:
    first = rollwave("migrate", env={"DATABASE_URL": empty_database})
    assert (first.returncode, "now at schema" in first.stdout + first.stderr) == (0, True)
    before = schema(empty_database)
    second = rollwave("migrate", env={"DATABASE_URL": empty_database})
    assert (second.returncode, "up to date" in second.stdout + second.stderr) == (0, True)
    assert schema(empty_database) == before


async def test_a_migration_that_waits_for_a_lock_blocks_no_other_session(empty_database: str, tmp_path: Path) -> None:
    """A long transaction reads the table and blocks the migration. All others can still read meanwhile."""
    async with connect(empty_database) as reader, connect(empty_database) as other:
        await at_version(reader, 8)
        holding = reader.transaction()
        await holding.start()
        await reader.execute("SELECT FROM ota_campaigns; SELECT FROM ota_device_status")
        env = {"DATABASE_URL": empty_database}
        async with rollwave_running("migrate", log=tmp_path / "log", env=env) as running:
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            for _ in range(2):
                await eventually(lambda: other.fetchval(waits), what="it waits for the table")
                await asyncio.wait_for(other.fetchval("SELECT count(*) FROM ota_campaigns"), 4 * LOCK_WAIT_SECONDS)
            assert running.process.returncode is None
            await holding.rollback()
            assert await asyncio.wait_for(running.process.wait(), 60) == 0, running.output()


async def test_three_concurrent_migrations_take_turns(empty_database: str, database: str, tmp_path: Path) -> None:
    async def migrate(number: int) -> str:
        log = tmp_path / str(number)
        async with rollwave_running("migrate", log=log, env={"DATABASE_URL": empty_database}) as running:
            assert await asyncio.wait_for(running.process.wait(), 30) == 0, running.output()
        return running.output()

    outputs = await asyncio.gather(*map(migrate, range(3)))
    assert sorted("up to date" in output for output in outputs) == [False, True, True]
    assert schema(empty_database) == schema(database)


@pytest.mark.parametrize(
    ("tampering", "complaint"),
    [
        (
            "INSERT INTO rollwave_migrations (version, name, checksum) VALUES (9000, '9000_later.sql', '')",
            "Upgrade Rollwave",
        ),
        ("UPDATE rollwave_migrations SET checksum = 'edited' WHERE version = 2", "0002_tables.sql"),
    ],
    ids=["newer", "edited"],
)
async def test_migrate_refuses_a_schema_that_it_does_not_know(
    database: str, broker: EmbeddedBroker, tampering: str, complaint: str, tmp_path: Path
) -> None:
    psql(database, tampering)
    before = schema(database)
    refused = rollwave("migrate", env={"DATABASE_URL": database})
    assert refused.returncode == 1
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert schema(database) == before
    if "9000" in tampering:
        assert await refuses("worker", database, broker, tmp_path / "worker", complaint)
        assert await refuses("serve", database, broker, tmp_path / "serve", complaint)


async def test_workers_refuse_a_database_without_schema(
    empty_database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    assert await refuses("worker", empty_database, broker, tmp_path / "worker", "rollwave migrate")


async def refuses(command: str, database: str, broker: EmbeddedBroker, log: Path, complaint: str) -> bool:
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url}
    async with rollwave_running(command, log=log, env=env) as running:
        return await asyncio.wait_for(running.process.wait(), 20) == 1 and explains(running, complaint)


def explains(running: Running, complaint: str) -> bool:
    output = running.output()
    return complaint in output and "error: " in output and "hint: " in output and "Traceback" not in output


def test_migrate_without_a_database_url_names_the_setting() -> None:
    for env in ({}, {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}):
        refused = rollwave("migrate", env=env)
        assert refused.returncode == 1
        assert "DATABASE_URL" in refused.stderr
        assert "Traceback" not in refused.stderr


async def test_a_migration_can_run_beside_workers(database: str, broker: EmbeddedBroker, tmp_path: Path) -> None:
    async with (
        connect(database) as host,
        devices(broker.url, always_succeeds),
        worker(database, broker.url, tmp_path / "log") as working,
    ):
        campaign = await insert_campaign(host, 60, rollout_rate=20)
        for arguments in ([], ["--force-rls"], []):
            migrated = await asyncio.to_thread(rollwave, "migrate", *arguments, env={"DATABASE_URL": database})
            assert migrated.returncode == 0, migrated.stderr
        await wait_until_ended(host, campaign)
        assert '"level": "error"' not in working.output()


async def test_a_failed_migration_file_is_rolled_back(empty_database: str) -> None:
    async with connect(empty_database) as host:
        await host.execute("CREATE VIEW ota_campaigns AS SELECT 1 AS id")  # The engine's column cannot be added to it.
        refused = await asyncio.to_thread(rollwave, "migrate", env={"DATABASE_URL": empty_database})
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr
        assert not await host.fetchval("SELECT to_regclass('tenants')")
        await host.execute("DROP VIEW ota_campaigns")
        repaired = await asyncio.to_thread(rollwave, "migrate", env={"DATABASE_URL": empty_database})
        assert repaired.returncode == 0, repaired.stderr


def test_a_login_that_does_not_exist_is_named_before_anything_is_changed(empty_database: str) -> None:
    before = schema(empty_database)
    refused = rollwave("migrate", "--grant-to", "svcc", env={"DATABASE_URL": empty_database})
    assert refused.returncode == 1
    assert "there is no login svcc" in refused.stderr
    assert "createuser svcc" in refused.stderr
    assert schema(empty_database) == before


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
def test_an_owner_without_createrole_can_migrate_as_documented(empty_database: str) -> None:
    page = (Path(__file__).parents[2] / "docs/howto/run-in-production.md").read_text("utf-8")
    (recipe,) = re.findall(r"\n\n(    CREATE ROLE pulse_app .*\n(?:    .*\n)+)", page)
    name = empty_database.partition("@/")[2].partition("?")[0]
    psql(
        empty_database,
        f"""
        CREATE ROLE owner LOGIN; CREATE ROLE runner_of_owner LOGIN;
        ALTER DATABASE {name} OWNER TO owner; ALTER SCHEMA public OWNER TO owner""",
    )
    made = psql(empty_database, "SELECT rolname FROM pg_roles")
    for statement in recipe.split(";")[:-1]:
        if not any(f"CREATE ROLE {role} " in statement and role in made for role in ("pulse_app", "rollwave_due")):
            psql(empty_database, statement)
    env = {"DATABASE_URL": empty_database.replace("postgres@", "owner@", 1)}
    migrated = rollwave("migrate", "--grant-to", "runner_of_owner", env=env)
    assert migrated.returncode == 0, migrated.stderr
    psql(empty_database.replace("postgres@", "runner_of_owner@", 1), "SET ROLE pulse_app")
