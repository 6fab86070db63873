"""Rights that were lost, by a dump, in another cluster or one by one: `rollwave migrate` repairs and lists each."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollwave.doctor.database import examine_database
from rollwave.domain.rights import COLUMNS, DUE
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.settings import Settings
from rollwave.store.rights import repair, wrong
from tests.engine import always_succeeds, campaign_row, connect, devices, insert_campaign, wait_until_ended, worker
from tests.host.platform import make_host
from tests.servers import crashable_postgres, debian_postgres
from tests.support import environment, free_port, psql, rollwave

OF_DUE = COLUMNS[DUE, "SELECT", "ota_campaigns"]


def migrate(url: str, *arguments: str) -> str:
    done = rollwave("migrate", *arguments, env={"DATABASE_URL": url})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def starts(url: str) -> str:
    """The output of a command that needs the schema."""
    done = rollwave("apikey", "list", "--tenant", "north", env={"DATABASE_URL": url})
    return "" if done.returncode == 0 else done.stderr


@contextmanager
def restored(server: EmbeddedPostgres, into: EmbeddedPostgres, owner: str, folder: Path) -> Iterator[str]:
    """The database in another cluster, as `pg_restore --no-owner --no-acl` run by ``owner`` leaves it."""
    dump, tools = folder / "dump", server.bin_dir
    subprocess.run([tools / "pg_dump", "-Fc", "-f", dump, server.url], check=True, env=environment())
    psql(into.url, f"CREATE DATABASE fleet OWNER {owner}")
    url = into.url.replace("/postgres?", "/fleet?").replace("postgres@", f"{owner}@", 1)
    # Objects that name roles missing in the cluster are left out, and pg_restore reports this by its exit code.
    done = subprocess.run(
        [tools / "pg_restore", "--no-owner", "--no-acl", "-d", url, dump],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert psql(url, "SELECT to_regclass('ota_campaigns') IS NOT NULL") == "t", done.stderr
    yield url


@pytest.mark.parametrize("owner", ["postgres", "keeper"])
@pytest.mark.parametrize("kind", ["embedded", "debian"])
async def test_rights_are_repaired_after_restoring_a_dump_without_rights(
    kind: str, owner: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    bin_dir = debian_postgres() if kind == "debian" else None
    with crashable_postgres(bin_dir) as old, crashable_postgres(bin_dir) as new:
        migrate(old.url)
        async with connect(old.url) as host:
            await insert_campaign(host, 4)
        psql(new.url, "CREATE ROLE keeper LOGIN CREATEROLE; CREATE ROLE runner LOGIN")
        with restored(old, new, owner, tmp_path) as url:
            assert "rollwave migrate" in starts(url)
            output = migrate(url, "--moved", "--grant-to", "runner")
            assert "up to date" not in output
            for fault in (
                "there is no role pulse_app",
                "pulse_app lacks SELECT, INSERT, UPDATE on ota_campaigns",
                f"rollwave_due lacks SELECT ({', '.join(OF_DUE)}) on ota_campaigns",
                "the function rollwave_due_campaigns_2 does not belong to rollwave_due",
                "PUBLIC has EXECUTE on the function rollwave_count",
                "there is no policy rollwave_due on ota_campaigns",
            ):
                assert f"repaired: {fault}\n" in output
            assert "up to date" in migrate(url)
            runner = url.replace(f"{owner}@", "runner@", 1)
            assert starts(runner) == ""
            root = url.replace(f"{owner}@", "postgres@", 1)
            async with (
                connect(root) as host,
                devices(broker.url, always_succeeds),
                worker(runner, broker.url, tmp_path / "log"),
            ):
                await wait_until_ended(host, 1)
                assert await campaign_row(host, 1) == ("COMPLETED", 4, 0)
            doctor = rollwave("doctor", env={"DATABASE_URL": runner, "MQTT_BROKER_URL": broker.url})
            assert doctor.returncode == 0, doctor.stdout


DAMAGES = {
    "there is no policy rollwave_tenant on devices": "DROP POLICY rollwave_tenant ON devices",
    "the policy rollwave_tenant on devices differs from the one that Rollwave needs": (
        "ALTER POLICY rollwave_tenant ON devices USING (true)"
    ),
    "row-level security is off for ota_quarantine": "ALTER TABLE ota_quarantine DISABLE ROW LEVEL SECURITY",
    "row-level security is not forced on devices": "ALTER TABLE devices NO FORCE ROW LEVEL SECURITY",
    "row-level security is off for rollwave_migrations": "ALTER TABLE rollwave_migrations DISABLE ROW LEVEL SECURITY",
    "pulse_app lacks SELECT, INSERT, UPDATE on devices": "REVOKE ALL ON devices FROM pulse_app",
    "pulse_app lacks USAGE on ota_campaigns_id_seq": "REVOKE ALL ON SEQUENCE ota_campaigns_id_seq FROM pulse_app",
    "pulse_app lacks UPDATE (id, bound_to, bound_at) on rollwave_installation": (
        "REVOKE UPDATE (bound_to) ON rollwave_installation FROM pulse_app"
    ),
    "the function rollwave_due_campaigns_2 does not belong to rollwave_due": (
        "ALTER FUNCTION rollwave_due_campaigns_2() OWNER TO postgres"
    ),
    "the function rollwave_due_campaigns_2 does not run with the rights of rollwave_due": (
        "ALTER FUNCTION rollwave_due_campaigns_2() SECURITY INVOKER"
    ),
    "PUBLIC has EXECUTE on the function rollwave_due_campaigns_2": (
        "GRANT EXECUTE ON FUNCTION rollwave_due_campaigns_2() TO PUBLIC"
    ),
    "PUBLIC has EXECUTE on the function rollwave_forget_tenant": (
        "GRANT EXECUTE ON FUNCTION rollwave_forget_tenant() TO PUBLIC"
    ),
    "PUBLIC has SELECT (secret_sha256) on rollwave_api_keys": (
        "GRANT SELECT (secret_sha256) ON rollwave_api_keys TO PUBLIC"
    ),
    "pulse_app has DELETE, INSERT on rollwave_migrations": "GRANT INSERT, DELETE ON rollwave_migrations TO pulse_app",
    "PUBLIC has SELECT on ota_quarantine": "GRANT SELECT ON ota_quarantine TO PUBLIC",
    "PUBLIC has USAGE on ota_quarantine_id_seq": "GRANT USAGE ON SEQUENCE ota_quarantine_id_seq TO PUBLIC",
}


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
@pytest.mark.parametrize("fault", DAMAGES)
async def test_each_missing_right_is_reported_by_the_doctor_and_repaired(database: str, fault: str) -> None:
    async with connect(database) as owner:
        await owner.execute(DAMAGES[fault])
        [found] = [each for each in await examine_database(Settings(DATABASE_URL=database)) if each.check == "rights"]
        assert fault in found.text
        assert "Run `rollwave migrate`" in found.mend
        repaired = await repair(owner)
        assert fault in repaired.done
        assert repaired.left == []
        assert await wrong(owner) == []


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
def test_the_commands_report_and_repair_a_missing_right(database: str) -> None:
    fault = next(iter(DAMAGES))
    psql(database, DAMAGES[fault])
    env = {"DATABASE_URL": database, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}"}
    doctor = rollwave("doctor", env=env).stdout
    assert fault in doctor, doctor
    assert "Run `rollwave migrate`" in doctor
    assert f"repaired: {fault}\n" in migrate(database)
    assert "up to date" in migrate(database)


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
def test_missing_rights_are_logged_when_the_engine_starts(database: str) -> None:
    assert starts(database) == ""
    psql(database, "REVOKE INSERT ON ota_campaign_history, ota_campaign_waves FROM pulse_app")
    output = starts(database)
    assert "the engine lacks a right: pulse_app lacks INSERT on ota_campaign_history (and 1 more)" in output
    assert "Run `rollwave migrate`" in output
    psql(database, "REVOKE ALL ON rollwave_migrations FROM pulse_app")
    assert "the engine lacks a right: permission denied" in starts(database)
    migrate(database)
    assert starts(database) == ""


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
async def test_a_table_that_the_host_created_again_gets_its_rights_again(empty_database: str) -> None:
    host = await make_host(empty_database)
    host.migrate()
    async with connect(host.owner) as owner:
        await owner.execute(
            "ALTER TABLE device_group_members RENAME TO before;"
            "CREATE TABLE device_group_members (LIKE before INCLUDING ALL);"
            "REVOKE ALL ON device_group_members FROM pulse_app;"
            "INSERT INTO device_group_members SELECT * FROM before; DROP TABLE before"
        )
    output = host.migrate()
    for fault in (
        "pulse_app lacks SELECT, INSERT, DELETE on device_group_members",
        "row-level security is off for device_group_members",
        "there is no policy rollwave_select on device_group_members",
    ):
        assert f"repaired: {fault}\n" in output
    assert "up to date" in host.migrate()


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
async def test_missing_triggers_on_a_hosts_tables_are_created_again(empty_database: str) -> None:
    """A table that the host makes anew has none."""
    host = await make_host(empty_database)
    host.migrate()
    triggers = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ~ '^rollwave_' ORDER BY 1"
    async with connect(host.root) as root:
        before = await root.fetch(triggers)
        assert len(before) == 5
        await root.execute("DROP TRIGGER rollwave_forget_tenant ON tenants")
        await root.execute("DROP TRIGGER rollwave_forget_campaigns ON ota_campaigns")
        await root.execute("ALTER TABLE ota_campaigns DISABLE TRIGGER rollwave_forget_campaign")
        doctor = rollwave(
            "doctor", env={"DATABASE_URL": host.root, "MQTT_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}"}
        )
        output = host.migrate()
        for fault in (
            "there is no trigger rollwave_forget_tenant on tenants",
            "there is no trigger rollwave_forget_campaign on ota_campaigns",
            "there is no trigger rollwave_forget_campaigns on ota_campaigns",
        ):
            assert fault in doctor.stdout
            assert f"repaired: {fault}\n" in output
        assert await root.fetch(triggers) == before
        assert await root.fetchval("SELECT bool_and(tgenabled = 'O') FROM pg_trigger WHERE tgname ~ '^rollwave_'")
    assert "up to date" in host.migrate()


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
async def test_host_tables_that_refuse_triggers_are_reported_and_nothing_else_fails(empty_database: str) -> None:
    """Like distributed tables of Citus, which refuse triggers with the same SQLSTATE."""
    host = await make_host(empty_database)
    psql(
        host.root,
        """
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                       WHERE object_identity ~ ' on public.(tenants|ota_)') THEN
                RAISE EXCEPTION 'no triggers here' USING ERRCODE = 'feature_not_supported';
            END IF;
        END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION refuse();
        """,
    )
    fault = "there is no trigger rollwave_forget_campaign on ota_campaigns"
    host.migrate()
    output = host.migrate()
    assert f"warning: could not be repaired: {fault}\n" in output
    assert output.count(f"repaired: {fault}\n") == 1, "and it is not listed as repaired"
    psql(host.root, "DROP EVENT TRIGGER refuse")
    assert f"repaired: {fault}\n" in host.migrate()
    assert "up to date" in host.migrate()
