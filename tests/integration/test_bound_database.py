"""The database that an installation is bound to: new, upgraded, restored from a dump, or unknown."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from rollwave.embedded.postgres import EmbeddedPostgres
from tests.engine import (
    always_succeeds,
    campaign_row,
    connect,
    devices,
    events,
    insert_campaign,
    wait_until_ended,
    worker,
)
from tests.integration.test_copied_database import (
    LOST,
    SUBSCRIBED,
    UNDECIDED,
    any_worker,
    begun,
    copy_of,
    identity,
)
from tests.servers import Mosquitto
from tests.support import environment, eventually, psql, rollwave


async def test_a_copy_of_an_unused_installation_gets_its_own_identity(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with (
        copy_of(database) as copy,
        worker(database, mosquitto.url, tmp_path / "one") as one,
        worker(copy, mosquitto.url, tmp_path / "other") as other,
        connect(copy) as host,
        devices(mosquitto.url, always_succeeds),
    ):
        await wait_until_ended(host, await insert_campaign(host, 5))
        assert events(one, LOST) == events(other, LOST) == []
        assert await identity(database) != await identity(copy)


UNDO = """
    DELETE FROM rollwave_migrations WHERE version = 11;
    ALTER TABLE rollwave_installation DROP COLUMN bound_to, DROP COLUMN bound_at;
    DROP FUNCTION rollwave_here();
"""
"""Undo the migration that introduced the identity."""


@pytest.mark.parametrize("flag", ["", "--copy"])
async def test_an_upgraded_installation_is_bound_to_its_present_database(
    database: str, mosquitto: Mosquitto, tmp_path: Path, flag: str
) -> None:
    await begun(database, mosquitto, tmp_path / "before")
    before = await identity(database)
    psql(database, UNDO)
    upgraded = rollwave("migrate", *filter(None, [flag]), env={"DATABASE_URL": database})
    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert psql(database, "SELECT bound_to = rollwave_here() FROM rollwave_installation") == "t"
    assert (await identity(database) == before) == (flag == "")
    async with worker(database, mosquitto.url, tmp_path / "after"):
        pass


async def test_rows_of_a_dump_inserted_into_a_new_schema_need_a_decision(
    database: str, empty_database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    campaign = await begun(database, mosquitto, tmp_path / "before")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    for table in ("rollwave_installation", "tenants", "firmware_versions", "ota_campaigns", "ota_device_status"):
        rows = psql(database, f"SELECT json_agg(t) FROM {table} t")
        psql(
            empty_database,
            f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $rows${rows}$rows$)",
        )
    assert psql(empty_database, "SELECT count(*) FROM rollwave_installation") == "2"
    finished = rollwave("migrate", env={"DATABASE_URL": empty_database})
    assert "was copied or moved" in finished.stderr
    assert rollwave("migrate", "--moved", env={"DATABASE_URL": empty_database}).returncode == 0
    assert await identity(empty_database) == await identity(database)
    async with (
        connect(empty_database) as host,
        devices(mosquitto.url, always_succeeds),
        worker(empty_database, mosquitto.url, tmp_path / "after") as running,
    ):
        await wait_until_ended(host, campaign)
        assert events(running, SUBSCRIBED)[0]["session_present"]


@pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)
async def test_without_a_system_identifier_from_postgresql_nothing_is_sent(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    psql(database, "CREATE ROLE rollwave_modest LOGIN NOINHERIT")
    assert rollwave("migrate", "--grant-to", "rollwave_modest", env={"DATABASE_URL": database}).returncode == 0
    psql(database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    own = database.replace("postgres@", "rollwave_modest@")
    async with (
        connect(database) as host,
        devices(mosquitto.url, always_succeeds) as fleet,
        any_worker(own, mosquitto.url, tmp_path / "log") as running,
    ):
        await eventually(lambda: events(running, UNDECIDED), what="it has logged why it sends nothing")
        campaign = await insert_campaign(host, 3, status="PAUSED")
        assert "GRANT EXECUTE ON FUNCTION pg_control_system()" in events(running, UNDECIDED)[0]["hint"]
        assert doctor(own, mosquitto)["state"] == "problem"
        assert "GRANT EXECUTE" in doctor(own, mosquitto)["mend"]
        repaired = await asyncio.to_thread(rollwave, "migrate", env={"DATABASE_URL": database})
        assert repaired.returncode == 0, repaired.stderr
        await eventually(lambda: events(running, SUBSCRIBED), what="it goes on")
        await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
        await wait_until_ended(host, campaign)
        assert len(fleet.commands) == 3
        assert len(events(running, UNDECIDED)) == 1


def doctor(database: str, broker: Mosquitto) -> dict[str, str]:
    """The doctor's findings about the identity."""
    finished = rollwave("doctor", "-o", "json", env={"DATABASE_URL": database, "MQTT_BROKER_URL": broker.url})
    [found] = [each for each in json.loads(finished.stdout)["findings"] if each["check"] == "identity"]
    return dict(found)


async def test_the_doctor_reports_a_copy_that_needs_a_decision(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    await begun(database, mosquitto, tmp_path / "before")
    async with copy_of(database) as copy:
        assert doctor(database, mosquitto)["state"] == "ok"
        found = doctor(copy, mosquitto)
        assert found["state"] == "problem"
        assert {"rollwave migrate --moved", "rollwave migrate --copy"} <= set(found["mend"].split("`"))


@pytest.mark.parametrize("postgres", ["debian"], indirect=True)
async def test_a_dump_restored_twice_gives_two_copies(
    database: str, postgres: EmbeddedPostgres, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    campaign = await begun(database, mosquitto, tmp_path / "before")
    name = psql(database, "SELECT current_database()")
    dump = str(tmp_path / "dump")

    def client(program: str, *arguments: str) -> None:
        subprocess.run([str(postgres.bin_dir / program), *arguments], env=environment(), check=True)

    client("pg_dump", "-Fc", "-f", dump, "-d", database)
    names = {await identity(database)}
    for copy in ("first", "second"):
        psql(postgres.url, f"CREATE DATABASE {name}_{copy}")
        try:
            restored = database.replace(f"/{name}?", f"/{name}_{copy}?")
            client("pg_restore", "--exit-on-error", "-d", restored, dump)
            finished = rollwave("migrate", env={"DATABASE_URL": restored})
            assert "was copied or moved" in finished.stderr, finished
            assert rollwave("migrate", "--copy", env={"DATABASE_URL": restored}).returncode == 0
            names.add(await identity(restored))
            async with (
                connect(restored) as host,
                worker(database, mosquitto.url, tmp_path / "original") as original,
                worker(restored, mosquitto.url, tmp_path / copy) as copied,
            ):
                assert (await campaign_row(host, campaign))[0] == "PAUSED"
                assert events(original, LOST) == events(copied, LOST) == []
        finally:
            psql(postgres.url, f"DROP DATABASE {name}_{copy} WITH (FORCE)")
    assert len(names) == 3
