"""Database URLs of hosted services, tried on real servers: accepted, or refused with the parameter's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rollwave.embedded.broker import EmbeddedBroker
from rollwave.errors import ConfigurationError, DatabaseUnavailable
from rollwave.store.database import create_pool, direct_pool
from rollwave.store.migrate import migrate
from tests.engine import events, worker
from tests.servers import PgBouncer
from tests.support import eventually, rollwave

DIRECT = "ROLLWAVE_DATABASE_DIRECT_URL"
SECRET = "hunter2"

UNDERSTOOD = [
    *("channel_binding=require", "channel_binding=prefer", "channel_binding=disable", "pgbouncer=true"),
    *("sslmode=prefer&channel_binding=require", "connect_timeout=10", "schema=public", "connection_limit=1"),
    *("keepalives=1&keepalives_idle=30", "gssencmode=disable", "application_name=mine", "target_session_attrs=any"),
]
POSTGRESQL_ONLY = ["options=-c%20search_path%3Dpublic", "statement_timeout=5000", "target_session_attrs=read-write"]

REFUSED = {
    "channel_binding=always": "channel_binding",
    "schema=other": "schema",
    "ssl=true": "ssl",
    "foo=bar": "foo",
    f"passwort={SECRET}": "passwort",
    "require_auth=none": "require_auth",
    "connect_timeout=soon": "connect_timeout",
    "sslmode=nonsense": "sslmode",
}


@pytest.fixture
def pgbouncer(database: str) -> Iterator[PgBouncer]:
    # Not in pytest's own folder: it runs as another user, who may not enter that folder.
    with TemporaryDirectory(prefix="rollwave-tests-") as folder, PgBouncer(Path(folder), database) as pooler:
        yield pooler


@pytest.mark.parametrize("parameters", UNDERSTOOD + POSTGRESQL_ONLY)
async def test_supported_url_parameters_are_accepted(parameters: str, database: str) -> None:
    url = f"{database}&{parameters}"
    for make in (create_pool(url), direct_pool(url)):
        async with make as pool:
            assert await pool.fetchval("SELECT 1") == 1
    assert (await migrate(url)).applied == []


async def test_the_application_name_in_the_url_is_used(database: str) -> None:
    for url in (f"{database}&application_name=mine", f"{database}&fallback_application_name=mine"):
        for make in (create_pool(url), direct_pool(url)):
            async with make as pool:
                assert await pool.fetchval("SHOW application_name") == "mine"


@pytest.mark.parametrize("parameters", UNDERSTOOD)
async def test_supported_url_parameters_are_accepted_through_a_pooler(parameters: str, pgbouncer: PgBouncer) -> None:
    async with create_pool(f"{pgbouncer.url}?{parameters}", pooled=True) as pool:
        assert await pool.fetchval("SELECT 1") == 1


async def test_pgbouncer_true_turns_prepared_statements_off(pgbouncer: PgBouncer) -> None:
    async with create_pool(f"{pgbouncer.url}?pgbouncer=true") as pool:
        for _ in range(20):  # Over four sessions of the server.
            await asyncio.gather(*(pool.fetchval("SELECT $1::int", each) for each in range(8)))


@pytest.mark.parametrize("parameter", REFUSED)
async def test_unsupported_url_parameters_are_refused_by_name(
    parameter: str, database: str, pgbouncer: PgBouncer
) -> None:
    for url in (f"{database}&{parameter}", f"{pgbouncer.url}?{parameter}"):
        with pytest.raises((DatabaseUnavailable, ConfigurationError)) as refused:
            async with create_pool(url, pooled=True):
                pass
        message = f"{refused.value} {refused.value.hint}"
        assert REFUSED[parameter] in message
        assert SECRET not in message
        assert DIRECT not in message, "the pooler is not the cause"
        assert "lets this login in" not in message, "the login is not the cause"


@pytest.mark.parametrize(
    ("parameters", "hint"),
    [
        ("sslmode=verify-full", "sslrootcert"),
        ("sslmode=verify-ca", "sslrootcert"),
        ("sslmode=require&sslrootcert={not_pem}", "sslrootcert"),
        ("sslmode=require&sslrootcert={missing}", "PEM"),
    ],
)
async def test_unusable_certificates_are_a_configuration_error(
    parameters: str, hint: str, database: str, tmp_path: Path
) -> None:
    (tmp_path / "not_pem").write_text("no certificate")
    files = {"not_pem": tmp_path / "not_pem", "missing": tmp_path / "missing"}
    with pytest.raises((DatabaseUnavailable, ConfigurationError)) as refused:
        async with create_pool(f"{database}&{parameters.format(**files)}"):
            pass
    assert hint in refused.value.hint


async def test_a_parameter_that_a_pooler_refuses_is_named(pgbouncer: PgBouncer) -> None:
    with pytest.raises(DatabaseUnavailable, match="options") as refused:
        async with create_pool(f"{pgbouncer.url}?options=-c%20search_path%3Dpublic", pooled=True):
            pass
    assert "ignore_startup_parameters" in refused.value.hint
    with pytest.raises(DatabaseUnavailable) as refused:
        async with create_pool(pgbouncer.url):
            pass
    assert DIRECT in refused.value.hint


async def test_a_worker_logs_ignored_url_parameters_once(database: str, broker: EmbeddedBroker, tmp_path: Path) -> None:
    url = f"{database}&pgbouncer=true&channel_binding=require"
    async with worker(url, broker.url, tmp_path / "log") as running:
        await eventually(lambda: events(running, "ota_status_listener_subscribed"), what="it listens")
        message = [event["remark"].split()[0] for event in events(running, "ota_database_url")]
    assert sorted(message) == ["channel_binding=require", "pgbouncer=true:"]


async def test_a_url_that_names_a_pooler_requires_the_direct_url(
    pgbouncer: PgBouncer, database: str, broker: EmbeddedBroker
) -> None:
    settings = {"DATABASE_URL": f"{pgbouncer.url}?pgbouncer=true", "MQTT_BROKER_URL": broker.url}
    for command in ("worker", "migrate"):
        message = await asyncio.to_thread(rollwave, command, env=settings)
        assert message.returncode == 1
        assert f"Set {DIRECT}" in message.stderr, message
    listed = await asyncio.to_thread(rollwave, "apikey", "list", "--tenant", "north", env=settings)
    assert (listed.returncode, listed.stderr) == (0, "No keys for tenant north.\n")
    settings[DIRECT] = database
    doctor = await asyncio.to_thread(rollwave, "doctor", env=settings)
    assert doctor.returncode == 0, doctor.stdout


async def test_the_doctor_reports_ignored_url_parameters(database: str, broker: EmbeddedBroker) -> None:
    settings = {"DATABASE_URL": f"{database}&channel_binding=require", "MQTT_BROKER_URL": broker.url}
    doctor = await asyncio.to_thread(rollwave, "doctor", env=settings)
    assert doctor.returncode == 0, doctor.stdout
    assert "warning  database URL: channel_binding=require" in doctor.stdout
