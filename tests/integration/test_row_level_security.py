"""Row-level security: no rows without a tenant, in the tables and on every path of the engine, without a superuser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import httpx2
import pytest

from rollwave.domain.rights import DEFINERS, FORGETTING
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.store import events
from rollwave.store.database import Pool, create_pool, tenant_transaction
from tests import statement_log
from tests.engine import (
    Command,
    Connection,
    always_succeeds,
    answer_with,
    breakdown,
    campaign_row,
    connect,
    devices,
    insert_campaign,
    never_answers,
    wait_until_ended,
    worker,
)
from tests.servers import server_folder, start_postgres
from tests.support import eventually, free_port, psql, rollwave, rollwave_running


async def tenant_tables(connection: Connection) -> list[str]:
    rows = await connection.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'tenant_id' ORDER BY 1"
    )
    return [row["table_name"] for row in rows]


async def insert_tenants_with_equal_ids(connection: Connection) -> None:
    """Two tenants whose rows have the same ids, with at least one row in every tenant table."""
    for tenant in ("north", "south"):
        await connection.execute(f"""
            INSERT INTO tenants VALUES ('{tenant}');
            INSERT INTO devices (tenant_id, device_id) VALUES ('{tenant}', 'dev-1');
            INSERT INTO device_groups (tenant_id, group_id) VALUES ('{tenant}', 'all');
            INSERT INTO device_group_members VALUES ('{tenant}', 'all', 'dev-1');
            INSERT INTO firmware_versions (id, tenant_id, version, file_url)
                VALUES (7, '{tenant}', '1.0-{tenant}', 'https://{tenant}.invalid/f');
            INSERT INTO ota_campaigns (id, tenant_id, name, firmware_version_id) VALUES (7, '{tenant}', 'twin', 7);
            INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
                SELECT '{tenant}', 7, 'dev-' || n FROM generate_series(1, 6) AS n;
            INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number) VALUES ('{tenant}', 7, 0);
            INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor) VALUES ('{tenant}', 7, 'x', 'y');
            INSERT INTO ota_quarantine (tenant_id, device_id, reason, payload) VALUES ('{tenant}', 'dev-1', 'x', '');
            INSERT INTO rollwave_api_keys (tenant_id, key_id, role, secret_sha256)
                VALUES ('{tenant}', 'k', 'viewer', '');
            INSERT INTO rollwave_group_imports (id, tenant_id, group_id, created_by, expires_at)
                VALUES (7, '{tenant}', 'all', 'k', 'infinity');
            INSERT INTO rollwave_group_import_devices (tenant_id, import_id, device_id, described, attributes)
                VALUES ('{tenant}', 7, 'dev-1', true, '{{"of": "{tenant}"}}');
            INSERT INTO rollwave_idempotency (tenant_id, key, digest, campaign_id)
                VALUES ('{tenant}', 'dev-1', '{tenant}', 7);
            INSERT INTO rollwave_event_consumers (tenant_id, consumer, last_event) VALUES ('{tenant}', 'dev-1', 6);
            INSERT INTO rollwave_device_fields (tenant_id, device_id) VALUES ('{tenant}', 'dev-1');
            INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)
                VALUES ('{tenant}', 7, 1, '{{}}');
            INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels)
                VALUES ('{tenant}', 7, 1, '{{}}');
            INSERT INTO ota_campaign_cells (tenant_id, campaign_id, wave, segment) VALUES ('{tenant}', 7, 0, 1);
            INSERT INTO ota_campaign_tests (tenant_id, campaign_id, number, guardrail, revision)
                VALUES ('{tenant}', 7, 1, 'failures', 1);
            INSERT INTO ota_campaign_test_buckets (tenant_id, campaign_id, test, first) VALUES ('{tenant}', 7, 1, 1);
            INSERT INTO ota_campaign_ranks (tenant_id, campaign_id, value, rank) VALUES ('{tenant}', 7, 'a', 1);
            INSERT INTO ota_campaign_budget_values (tenant_id, campaign_id, budget, value)
                VALUES ('{tenant}', 7, 1, 'a');
            INSERT INTO ota_campaign_budget_held (tenant_id, campaign_id, budget, value, segment, position, device_id)
                VALUES ('{tenant}', 7, 1, 'a', 1, 1, 'dev-1');
            INSERT INTO ota_campaign_points
                (tenant_id, campaign_id, at, pending, downloading, installing, succeeded, failed, skipped)
                VALUES ('{tenant}', 7, now() - interval '1 day', 1, 0, 0, 0, 0, 0);
            INSERT INTO ota_campaign_plans (tenant_id, campaign_id, revision, points_at, devices)
                VALUES ('{tenant}', 7, 1, '{{1.0}}', '{{1}}');
            INSERT INTO rollwave_brakes (tenant_id, kind, name, created_by)
                VALUES ('{tenant}', 'halt', 'halt', 'dev-1');
            INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, starts_at)
                VALUES ('{tenant}', 'halt', 'halt', 'set', 'dev-1', now());
            INSERT INTO rollwave_policies (tenant_id, name, document) VALUES ('{tenant}', 'dev-1', '{{}}');
        """)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@asynccontextmanager
async def as_pulse_app(connection: Connection, tenant: str | None) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SET LOCAL ROLE pulse_app")
    if tenant is not None:
        await connection.execute(f"SET LOCAL app.tenant_id = '{tenant}'")
    try:
        yield
    finally:
        await transaction.rollback()


async def test_every_tenant_table_has_forced_row_level_security(host: Connection) -> None:
    rows = await host.fetch(
        "SELECT relname, relrowsecurity, relforcerowsecurity, EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)"
        " FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
    )
    tables = set(await tenant_tables(host))
    assert {row["relname"] for row in rows if all(tuple(row)[1:])} == tables
    assert len(tables) >= 13
    # A table without a tenant's rows is about the installation, and has this in its name.
    assert all(row["relname"].startswith("rollwave_") for row in rows if row["relname"] not in tables)


@pytest.mark.parametrize("tenant", [None, "", "nobody"])
async def test_without_a_tenant_no_row_is_seen(host: Connection, tenant: str | None) -> None:
    await insert_tenants_with_equal_ids(host)
    for table in await tenant_tables(host):
        assert await host.fetchval(f"SELECT count(*) FROM {table}"), f"{table} is empty, so nothing is shown here"
        async with as_pulse_app(host, tenant):
            assert await host.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_a_tenant_setting_that_ended_with_its_transaction_shows_no_row(host: Connection) -> None:
    await insert_tenants_with_equal_ids(host)
    async with as_pulse_app(host, "north"):
        assert await host.fetchval("SELECT count(*) FROM ota_device_status") == 6
    async with as_pulse_app(host, None):  # The setting exists now, and is empty.
        assert await host.fetchval("SELECT count(*) FROM ota_device_status") == 0


async def test_a_tenant_sees_and_writes_only_its_own_rows(host: Connection) -> None:
    await insert_tenants_with_equal_ids(host)
    for table in await tenant_tables(host):
        async with as_pulse_app(host, "north"):
            rows = await host.fetch(f"SELECT DISTINCT tenant_id FROM {table}")
            assert [row["tenant_id"] for row in rows] == ["north"], table
        async with as_pulse_app(host, "north"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await host.execute(
                    f"INSERT INTO {table} SELECT (jsonb_populate_record(t, $1::jsonb)).* FROM {table} AS t",
                    '{"tenant_id": "south"}',
                )
        for change in (
            f"UPDATE {table} SET tenant_id = 'south'",
            f"UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = 'south'",
            f"DELETE FROM {table} WHERE tenant_id = 'south'",
        ):
            async with as_pulse_app(host, "north"):
                with suppress(asyncpg.InsufficientPrivilegeError):
                    assert (await host.execute(change)).endswith(" 0"), change


async def test_only_due_campaigns_and_the_number_of_halts_are_read_across_tenants(host: Connection) -> None:
    *due_functions, halted = DEFINERS
    assert all(each.startswith("rollwave_due_campaigns") for each in due_functions)
    await insert_tenants_with_equal_ids(host)
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING'")
    both = [("north", 7, "RUNNING"), ("south", 7, "RUNNING")]
    async with as_pulse_app(host, None):
        of_previous_version, newest = [await host.fetch(f"SELECT * FROM {each}()") for each in due_functions[-2:]]
        assert of_previous_version == [], "it knows no halt"
        assert [tuple(row) for row in newest] == both
        assert await host.fetchval(f"SELECT {halted}()") == 2
    await host.execute("DELETE FROM rollwave_brakes")
    async with as_pulse_app(host, None):
        for function in due_functions:
            assert [tuple(row) for row in await host.fetch(f"SELECT * FROM {function}()")] == both
    definers = await host.fetch(
        "SELECT proname, proowner::regrole::text AS owner, proacl::text AS may FROM pg_proc"
        " WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY proname"
    )
    # The others are trigger functions: they use the tenant of the deleted row, and no role may call them.
    reading = ("rollwave_due", "{rollwave_due=X/rollwave_due,pulse_app=X/rollwave_due}")
    forgetting = ("postgres", "{postgres=X/postgres}")
    assert {row["proname"]: (row["owner"], row["may"]) for row in definers} == (
        dict.fromkeys(DEFINERS, reading) | dict.fromkeys(FORGETTING, forgetting)
    )


if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


class EveryTenant(_Connection):
    """A connection that removes the tenant from each statement, so that it asks for the rows of all tenants."""

    changed: ClassVar[set[str]] = set()

    @classmethod
    def stripped(cls, sql: str) -> str:
        without = re.sub(r"\b(\w+\.)?tenant_id = \$1", "$1::text IS NOT NULL", sql)
        if without != sql:
            cls.changed.add(sql)
        return without

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        return await super().execute(self.stripped(query), *args, **options)

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetch(self.stripped(query), *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchrow(self.stripped(query), *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        return await super().fetchval(self.stripped(query), *args, **options)


async def nothing_is_due(host: Connection) -> bool:
    """Whether the role that reads across tenants sees no campaign."""
    return not await host.fetch(f"SELECT FROM {DEFINERS[-2]}()")


@pytest.fixture
async def pool_for_every_tenant(database: str) -> AsyncIterator[Pool]:
    """A host's pool whose statements name no tenant."""
    EveryTenant.changed.clear()
    async with asyncpg.create_pool(database, min_size=0, connection_class=EveryTenant) as pool:
        yield pool
    assert len(EveryTenant.changed) >= 10, "statements on campaigns, executions, waves and more"


async def test_row_level_security_holds_with_the_tenant_removed_from_the_sql(
    pool_for_every_tenant: Pool, host: Connection, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_for_every_tenant
    from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop

    monkeypatch.setenv("MQTT_BROKER_URL", broker.url)
    monkeypatch.setenv("OTA_TICK_INTERVAL", "0.2")
    await insert_tenants_with_equal_ids(host)
    await host.execute("DELETE FROM rollwave_brakes")  # They halt both tenants.
    await host.execute("UPDATE ota_campaigns SET status = 'RUNNING', abort_threshold = 0.9")

    def answer(command: Command) -> Sequence[bytes]:
        assert f"{command.tenant}.invalid".encode() in command.body
        return (always_succeeds if command.tenant == "north" else answer_with("FAILED"))(command)

    async with devices(broker.url, answer) as fleet:
        running = [
            asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.2)),
            asyncio.create_task(run_ota_status_listener(pool)),
        ]
        try:
            await wait_until_ended(host, 7, "COMPLETED", tenant="north")
            await wait_until_ended(host, 7, "ABORTED", tenant="south")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        assert len(fleet.commands_of(7, "north")) == 6
    assert await campaign_row(host, 7, "north") == ("COMPLETED", 6, 0)
    assert await breakdown(host, 7, "north") == {"SUCCESS": 6}
    status, succeeded, failed = await campaign_row(host, 7, "south")
    assert (status, succeeded) == ("ABORTED", 0)
    assert (await breakdown(host, 7, "south"))["FAILED"] == failed


class Logged:
    """A server that logs every statement, and the statements of a database since a mark."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._log = server.data_dir / "log" / "statements.json"

    async def lines(self, database: str, since: str) -> list[statement_log.Line]:
        """Every line between ``mark`` and now, without the test's own."""
        end = await self.mark(database)
        name = database.partition("@/")[2].partition("?")[0]

        def reached() -> list[statement_log.Line]:
            lines = list(statement_log.read(self._log))
            return lines if any(end in line.message for line in lines) else []

        lines = await eventually(reached, what="the log has caught up")
        start = next(number for number, line in enumerate(lines) if since in line.message)
        return [line for line in lines[start:] if line.database == name and line.application != "host"]

    async def mark(self, database: str) -> str:
        """Write a unique mark into the log, and return it."""
        async with connect(database) as connection:
            word: str = await connection.fetchval("SELECT 'mark-' || gen_random_uuid()")
            await connection.execute(f"SELECT '{word}'")
        return word


@contextmanager
def logging_server() -> Iterator[Logged]:
    with server_folder() as folder, EmbeddedPostgres(folder / "logged", settings=statement_log.SETTINGS) as server:
        yield Logged(server)


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Of one test: it makes roles, which belong to the server."""
    with logging_server() as logged:
        yield logged


@pytest.fixture(scope="module")
def logged_by_pulse_app() -> Iterator[Logged]:
    """Of the tests of the check itself: it has the role, and a table of tenants in the database ``postgres``."""
    with logging_server() as logged:
        psql(
            logged.server.url,
            "CREATE TABLE devices (tenant_id text); GRANT ALL ON devices TO PUBLIC; CREATE ROLE pulse_app",
        )
        yield logged


@asynccontextmanager
async def owned_database(server: EmbeddedPostgres) -> AsyncIterator[tuple[str, str]]:
    """A database migrated by an owner with CREATEROLE.

    Yields the superuser's URL, and the URL of a plain login that runs workers.
    """
    async with connect(server.url) as root:
        await root.execute("CREATE ROLE keeper LOGIN CREATEROLE; CREATE ROLE runner LOGIN")
        await root.execute("CREATE DATABASE fleet OWNER keeper")
    url = server.url.replace("@/postgres?", "@/fleet?")
    other_connection, runner = url.replace("postgres@", "keeper@", 1), url.replace("postgres@", "runner@", 1)
    migrated = rollwave("migrate", "--grant-to", "runner", env={"DATABASE_URL": other_connection})
    assert migrated.returncode == 0, migrated.stderr
    yield url, runner


async def test_every_statement_on_tenant_tables_is_in_a_tenants_transaction(
    logged: Logged, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with owned_database(logged.server) as (url, runner), connect(url) as host:
        tables = await tenant_tables(host)
        began = await logged.mark(url)
        await run_everything(host, runner, broker, tmp_path)
        lines = await logged.lines(url, began)
    assert {line.user for line in lines} == {"runner"}
    verdict = statement_log.judge(lines, tables)
    assert verdict.wrong == []
    assert verdict.touched.keys() == set(tables)
    assert verdict.touched["ota_device_status"] > 100


async def run_everything(host: Connection, runner: str, broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Use every path of the engine and the API, for two tenants at once."""
    port = free_port()
    settings = {
        "DATABASE_URL": runner,
        "MQTT_BROKER_URL": broker.url,
        "OTA_TICK_INTERVAL": "0.2",
        "OTA_MAX_ATTEMPTS": "2",
        "ROLLWAVE_RECONCILE_INTERVAL": "0.5",
    }
    answers = {"good": always_succeeds, "bad": answer_with("FAILED"), "mute": never_answers}

    def answer(command: Command) -> Sequence[bytes]:
        return answers[command.device.split("-")[0]](command)

    def named(kind: str, number: int) -> list[str]:
        return [f"{kind}-{each}" for each in range(number)]

    # Before there are devices: these simulated ones run in this process, which waits for the command.
    key = rollwave("apikey", "create", "--tenant", "north", "--role", "admin", env={"DATABASE_URL": runner})
    async with (
        devices(broker.url, answer) as fleet,
        rollwave_running("serve", "--port", str(port), log=tmp_path / "log", env=settings) as serving,
    ):
        await eventually(lambda: "ota_status_listener_subscribed" in serving.output(), what="serving")
        completed = [
            await insert_campaign(host, named("good", 30)),
            await insert_campaign(host, named("good", 30), tenant="south", rollout_strategy="canary"),
            await insert_campaign(
                host, [*named("good", 5), *named("mute", 2)], abort_threshold=0.9, progress_timeout=1.0
            ),
            await insert_campaign(host, ["no/topic", *named("good", 3)], tenant="south", rollout_rate=2),
        ]
        aborted = await insert_campaign(host, named("bad", 30), tenant="south")
        held = await insert_campaign(host, named("good", 3), abort_threshold=2.0)
        for tenant, device in (("north", "good-1"), ("nobody", "good-1")):
            fleet.send(status_topic(tenant, device), b"not a report")
            fleet.send(status_topic(tenant, device), encode_report(aborted, "SUCCESS"))
        completed += await over_http(port, key.stdout.strip())
        for campaign, tenant in zip(completed, ["north", "south", "north", "south", "north", "north"], strict=True):
            await wait_until_ended(host, campaign, tenant=tenant)
        await wait_until_ended(host, aborted, "ABORTED", tenant="south")
        assert (await campaign_row(host, held))[0] == "PAUSED"
        await consume(runner)
        serving.process.terminate()
        assert await serving.process.wait() == 0


async def consume(runner: str) -> None:
    """Read events as a consumer of a tenant does."""
    async with create_pool(runner, size=1) as pool:
        found = await events.read(pool, "north", after=0, limit=100)
        assert found
        async with tenant_transaction(pool, "north") as connection:
            assert await events.position(connection, "north", "test") == 0
            await events.advance(connection, "north", "test", found[-1].id)


UNDER_DOCUMENT: dict[str, object] = {
    "order": "label:site",
    "waves": [{"name": "canary", "size": 1}, {"name": "rest"}],
    "budgets": [{"name": "sites", "per": "site", "max_in_flight": 1}],
    "guardrails": [{"name": "types", "scope": "segment", "per": ["site"], "action": "quarantine"}],
}
"""A policy document that uses each of its tables."""


async def over_http(port: int, key: str) -> list[int]:
    """Create two campaigns over the API, the second one under a policy document. Returns their numbers."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/api/v1/customer", headers={"Authorization": f"Bearer {key}"}
    ) as client:
        await client.put("/devices/good-1", json={"device_type": "pump", "attributes": {"site": "a"}})
        await client.put("/devices/good-2", json={"attributes": {"site": "a"}})
        await client.put("/device-groups/all", json={"device_ids": ["good-1", "good-2"]})
        imported = (await client.post("/device-groups/imported/imports")).json()["import_id"]
        part = {"devices": [{"device_id": "good-1", "device_type": "pump"}]}
        for step, body in (("devices", part), ("apply", None)):
            answer = await client.post(f"/device-groups/imported/imports/{imported}/{step}", json=body)
            assert answer.status_code == 200, answer.text
        firmware = await client.post(
            "/firmware", json={"version": "3.0", "file_url": "https://files.invalid/f", "checksum_sha256": "ab" * 32}
        )
        created = await client.post(
            "/ota/campaigns",
            json={"name": "api", "firmware_version_id": firmware.json()["id"], "target_group_id": "all"},
            headers={"Idempotency-Key": "once"},
        )
        number: int = created.json()["id"]
        for path in ("/start", "/pause", "/start"):
            assert (await client.post(f"/ota/campaigns/{number}{path}")).status_code == 200
        assert (await client.post("/ota/halt", json={"reason": "test"})).status_code == 200
        assert (await client.delete("/ota/halt")).is_success
        for path in ("/firmware", "/ota/campaigns", f"/ota/campaigns/{number}", f"/ota/campaigns/{number}/devices"):
            assert (await client.get(path)).status_code == 200
        assert (await client.put("/ota/policies/stored", json=UNDER_DOCUMENT)).is_success
        of_document = {"name": "document", "firmware_version_id": firmware.json()["id"], "target_group_id": "all"}
        under = (await client.post("/ota/campaigns", json=of_document | {"policy": "stored"})).json()["id"]
        assert (await client.post(f"/ota/campaigns/{under}/start")).status_code == 200
    return [number, under]


TAKE_ROLE = "SET LOCAL ROLE pulse_app"
NAME_TENANT = "SET LOCAL app.tenant_id = 'north'"
COUNT = "SELECT count(*) FROM devices"


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        (["BEGIN", TAKE_ROLE, NAME_TENANT, COUNT, "COMMIT"], None),
        (
            [
                "BEGIN",
                f"{TAKE_ROLE}; {NAME_TENANT}; {COUNT}",
                "COMMIT",
                "SELECT 'devices' AS ota_devices -- devices",
            ],
            None,
        ),
        ([COUNT], "no transaction"),
        ([f"{COUNT}; {COUNT}"], "no transaction"),
        ([TAKE_ROLE, NAME_TENANT, COUNT], "outside a transaction"),
        (["BEGIN", COUNT, "COMMIT"], "not as pulse_app"),
        (["BEGIN", NAME_TENANT, COUNT, "COMMIT"], "not as pulse_app"),
        (["BEGIN", TAKE_ROLE, COUNT, "COMMIT"], "no tenant"),
        (["BEGIN", TAKE_ROLE, NAME_TENANT, "COMMIT", COUNT], "no transaction"),
        (["BEGIN", TAKE_ROLE, NAME_TENANT, "COMMIT", "BEGIN", COUNT, "COMMIT"], "not as pulse_app"),
        (["BEGIN", TAKE_ROLE, NAME_TENANT, "RESET ROLE", COUNT, "COMMIT"], "not as pulse_app"),
    ],
)
async def test_the_statement_log_check_detects_wrong_statements(
    logged_by_pulse_app: Logged, statements: list[str], complaint: str | None
) -> None:
    lines, tables = await carried_out(logged_by_pulse_app, statements)
    verdict = statement_log.judge(lines, tables)
    if complaint is None:
        assert verdict.wrong == []
        assert verdict.touched == {"devices": 1}
    else:
        assert complaint in verdict.wrong[0]


async def carried_out(logged: Logged, statements: list[str]) -> tuple[list[statement_log.Line], list[str]]:
    """The log lines of ``statements``. The last one but COMMIT uses the extended protocol, too."""
    url = logged.server.url
    began = await logged.mark(url)
    direct = await asyncpg.connect(url)
    try:
        for statement in statements:
            await (direct.fetch if statement == COUNT else direct.execute)(statement)
    finally:
        await direct.close()
    return await logged.lines(url, began), ["devices"]


async def test_the_statement_log_check_compares_the_tenant(logged_by_pulse_app: Logged) -> None:
    url = logged_by_pulse_app.server.url
    began = await logged_by_pulse_app.mark(url)
    direct = await asyncpg.connect(url)
    try:
        async with direct.transaction():
            await direct.execute(f"{TAKE_ROLE}; {NAME_TENANT}")
            await direct.fetch("SELECT FROM devices WHERE tenant_id = $1", "north")
            await direct.fetch("SELECT FROM devices WHERE tenant_id = $1", "south")
    finally:
        await direct.close()
    verdict = statement_log.judge(await logged_by_pulse_app.lines(url, began), ["devices"])
    assert verdict.touched == {"devices": 1}
    assert [each.split(":")[0] for each in verdict.wrong] == ["asks for south as north"]


@pytest.fixture(params=["embedded", "debian"])
def bare_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A server without the engine's roles."""
    with server_folder() as folder, start_postgres(request.param, folder) as server:
        yield server


async def test_the_engine_needs_no_superuser(
    bare_server: EmbeddedPostgres, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with owned_database(bare_server) as (url, runner), connect(url) as host:
        async with devices(broker.url, always_succeeds), worker(runner, broker.url, tmp_path / "log"):
            good = await insert_campaign(host, 20)
            canary = await insert_campaign(host, 5, tenant="south", rollout_strategy="canary")
            await wait_until_ended(host, good)
            await wait_until_ended(host, canary, tenant="south")
            await eventually(lambda: nothing_is_due(host), what="nothing is left to do with the campaigns")
        async with connect(runner) as plain:
            for table in await tenant_tables(host):
                with suppress(asyncpg.InsufficientPrivilegeError):
                    assert await plain.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        other_connection = url.replace("postgres@", "keeper@", 1)
        async with connect(other_connection) as owner:
            for table in await tenant_tables(host):
                assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 0, "also forced for the owner"
        roles = await host.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('pulse_app', 'rollwave_due')"
            " AND NOT (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin)"
        )
        assert len(roles) == 2


async def test_roles_made_beforehand_are_enough_for_an_owner_without_createrole(bare_server: EmbeddedPostgres) -> None:
    async with connect(bare_server.url) as root:
        await root.execute("CREATE ROLE pulse_app NOLOGIN; CREATE ROLE rollwave_due NOLOGIN; CREATE ROLE keeper LOGIN")
        await root.execute("GRANT pulse_app, rollwave_due TO keeper")
        await root.execute("CREATE DATABASE fleet OWNER keeper")
    url = bare_server.url.replace("@/postgres?", "@/fleet?").replace("postgres@", "keeper@", 1)
    for expected in ("now at schema", "up to date"):
        migrated = rollwave("migrate", env={"DATABASE_URL": url})
        assert migrated.returncode == 0, migrated.stderr
        assert expected in migrated.stdout + migrated.stderr
