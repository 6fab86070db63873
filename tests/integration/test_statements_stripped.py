"""Every statement on tenants' rows, with the tenant removed: row-level security alone separates two tenants."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from rollwave.store.queries import load
from tests import placing_statements
from tests.engine import Connection, connect
from tests.integration.test_row_level_security import insert_tenants_with_equal_ids, tenant_tables

SHARED_DEVICE_ID = "dev-1"
_OF_A_TENANT = re.compile(r"(\w+\.)?tenant_id = (\$1(::text)?|\w+\.tenant_id)")
_NAME_NO_TENANT = {
    # They name it as a value, which row-level security compares: see test_row_level_security.
    *("access.insert", "new_campaigns.insert", "firmware.insert", "events.append", "events.advance"),
    *("access.register", "new_campaigns.keep_key", "devices.put_fields"),
    *(
        "devices.insert_device",
        "devices.insert_group",
        "campaigns.insert_waves",
        "budgets.add",
        "labels.record",
        "counters.repair_cells",
        "policies.insert",
        "stored_policies.put",
        "imports.insert",
        "imports.add_devices",
        "timeline.write_plan",
    ),
    # They call functions that name it.
    *("labels.record_of_many_tenants", "devices.get_device", "devices.devices_of"),
    *("device_labels.labels", "device_labels.host_labels"),
    *("brakes.halt", "brakes.add_freeze"),
    # They read no row, but the types of the table's columns.
    *("rejected_values.devices", "rejected_values.device_groups", "rejected_values.device_group_members"),
    *("rejected_values.firmware_versions", "rejected_values.ota_campaigns", "rejected_values.ota_device_status"),
    # Statements across tenants by design, and the doctor's questions about the tables.
    *(
        "campaigns.due",
        "quarantine.tenants",
        "brakes.tenants",
        "brakes.halt_tenants",
        "brakes.lift_tenants",
        "brakes.confined",
        "health.tables",
        "health.seen_without_tenant",
        "health.single_tenant",
        "access.are_a_hosts",
    ),
    # Which transactions write events, of any tenant.
    "events.writers",
}

_ARGUMENTS: dict[str, dict[int, object]] = {
    "campaign_devices.page_looked_for": {3: "FAILED"},
    "campaign_devices.count_looked_for": {3: "FAILED"},
    "counters.repair": {3: None},
    "campaigns.move": {3: "RUNNING", 4: "PAUSED"},
    "events.end_of_page": {2: 0},
    "events.page": {2: 0, 3: 1_000_000},
    "executions.apply_reports": {4: ["SUCCESS", "FAILED"]},
    "executions.claim": {6: "[/#+]"},
    "firmware.delete": {2: 8},
    "firmware.of_version": {2: "unused", 3: None},
    "imports.finish": {3: "{}"},
    "guardrails.begin": {5: ["x", "y"], 8: ['["ring"]', None], 9: ["{}", "{}"]},
    "guardrails.insert_first_rows": {3: ["new-1", "new-2"]},
    "guardrails.cover_in_flight": {3: [2], 4: [2, 2], 5: [3, 4]},
    "guardrails.draw": {4: [1, 2]},
    "guardrails.count": {4: [1, 2]},
    "budgets.hold": {3: ["(0,1)", "(0,2)"]},
    "brakes.lift": {2: "halt"},
    "brakes.lifted_by": {2: "halt"},
    "policies.put_in_force": {4: None},
    "segments.described": {3: [3]},
    "standing.all_due": {3: [3]},
    "retries.again": {3: ["failed"]},
    "placing_progress.surveyed": {4: None},
    "segment_quarantine.quarantine": {3: '{"site": "a"}'},
    "segment_quarantine.release": {3: 2},
    "segment_quarantine.exists": {3: 3},
    "waves.open_next": {3: 0},
    "imports.lock": {3: "all"},
    "quarantine.keep": {4: ["00", "00"]},
    "views.devices": {3: None},
    "views.devices_looked_for": {3: "SKIPPED"},
    "views.devices_unfinished": {3: "DOWNLOADING"},
    "views.events": {3: 0},
    "device_campaigns.is_registered": {2: "of-south"},
    "devices.groups_of": {2: "of-south"},
    "search.firmware": {2: "1.0"},
    "timeline.plan_made": {3: 9},
    "timeline.marks": {3: ["south"]},
    "devices.describe_devices": {4: ["{}", "{}"]},
    "devices.update_device": {4: "{}"},
    "targets.fits_another": {4: "of-north"},
    "targets.insert": {3: "all"},
    "campaigns.pass_gate": {3: 0},
}
_BY_TYPE: dict[str, object] = {
    "text": SHARED_DEVICE_ID,
    "int8": 7,
    "int4": 1,
    "float8": 1.0,
    "bool": True,
    "text[]": [SHARED_DEVICE_ID, "dev-2"],
    "int8[]": [7, 7],
    "int4[]": [1, 1],
    "float8[]": [1.0, 1.0],
    "bool[]": [True, True],
}


UNDER_DOCUMENTS = """
    UPDATE ota_campaigns SET created_by = tenant_id, placement = '{}';
    UPDATE ota_campaign_budget_values SET owed = 1;
    INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document) VALUES ('south', 7, 9, '{}');
    INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, soak_failed) SELECT tenant_id, 7, 1, 5 FROM tenants;
    UPDATE ota_campaign_cells SET wave = 1, waiting = 3, in_flight = 4;
    UPDATE ota_campaign_segments SET labels = '{"site": "a"}';
    INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, quarantined_at)
        SELECT tenant_id, 7, 2, '{"site": "b"}', now() FROM tenants;
    INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, closed, reopened)
        VALUES ('south', 7, 3, '{"site": "c"}', '{[2026-01-01, 2026-01-02)}', true);
    UPDATE ota_campaign_tests SET guardrail = 'dev-1', wave = 1, labels_key = 'dev-1', finished = 1;
    INSERT INTO ota_campaign_tests (tenant_id, campaign_id, number, guardrail, revision, labels, finished,
                                    tripped_at, began_after)
        SELECT tenant_id, 7, 2, 'dev-2', 1, '{"site": "a"}', 1, now(), 5 FROM tenants;
    INSERT INTO ota_campaign_tests (tenant_id, campaign_id, number, guardrail, revision)
        VALUES ('south', 7, 9, 'south', 1);
    INSERT INTO ota_campaign_test_buckets (tenant_id, campaign_id, test, first) VALUES ('south', 7, 1, 2);
    INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, attempt, sent_attempt, completed_at,
                                   due_at, held_due_at, failed_reason, error_code, segment, position, budget_values)
        VALUES ('south', 7, 'failed', 'FAILED', 1, 1, now(), NULL, NULL, 'dev-1', 'dev-1', 1, 2::bigint << 44, '{x}'),
               ('south', 7, 'late', 'DOWNLOADING', 1, 1, NULL, now(), NULL, NULL, NULL, 1, 2::bigint << 44, '{x}'),
               ('south', 7, 'held', 'DOWNLOADING', 1, 1, NULL, now() + interval '1 day', now() + interval '1 day', NULL,
                NULL, 1, 2::bigint << 44, '{x}');
    INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status) VALUES ('south', 7, 'done', 'SUCCESS');
    INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor, device_id)
        VALUES ('south', 7, 'retried', 'y', 'dev-1');
    INSERT INTO ota_campaign_points
        (tenant_id, campaign_id, at, pending, downloading, installing, succeeded, failed, skipped)
        VALUES ('south', 7, '1970-01-01 00:00:00.000007+00', 1, 0, 0, 0, 0, 0);
    INSERT INTO ota_campaign_plans (tenant_id, campaign_id, revision, points_at, devices)
        VALUES ('south', 7, 0, '{1.0}', '{1}'), ('south', 7, 9, '{1.0}', '{1}');
    UPDATE rollwave_brakes SET name = 'dev-1', created_by = tenant_id;
    INSERT INTO rollwave_brakes (tenant_id, kind, name, created_by, starts_at, ends_at)
        VALUES ('south', 'freeze', 'of-south', 'k', now(), now() + interval '1 day');
    INSERT INTO rollwave_brake_history (tenant_id, kind, name, change, actor, starts_at)
        VALUES ('south', 'halt', 'dev-1', 'lifted', 'south', now());
"""
"""Rows of documents, guardrails and brakes. Those of the tenant ``south`` alone would be seen or changed by others."""


def every_statement() -> Iterator[tuple[str, str]]:
    """Statements by name, but those that are made of parts: these are in ``tests.placing_statements``."""
    for path in sorted((files("rollwave.store") / "sql").iterdir(), key=lambda path: path.name):
        noun = path.name.removesuffix(".sql")
        for name, sql in load(noun).items():
            if not placing_statements.is_part(sql):
                yield f"{noun}.{name}", sql


def stripped(sql: str) -> str:
    return _OF_A_TENANT.sub("$1::text IS NOT NULL", sql)


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await insert_tenants_with_equal_ids(connection)
        await connection.execute("""
            UPDATE ota_campaigns SET status = 'RUNNING', command = tenant_id, succeeded = 9,
                pending = 9, downloading = 9, installing = 9, skipped = 9, targeted_devices = 0;
            UPDATE ota_campaigns SET active_since = now(), active_at = now() WHERE tenant_id = 'south';
            UPDATE ota_device_status SET error_message = 'of ' || tenant_id;
            UPDATE ota_device_status SET attempt = 1, due_at = now() WHERE device_id = 'dev-1';
            UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1, due_at = now()
                WHERE device_id = 'dev-2';
            UPDATE ota_device_status SET status = 'DOWNLOADING' WHERE device_id = 'dev-3';
            UPDATE ota_device_status SET status = 'DOWNLOADING', attempt = 1, sent_attempt = 1,
                due_at = now() + interval '1 hour' WHERE device_id = 'dev-5';
            UPDATE ota_device_status SET device_id = 'no/topic' WHERE device_id = 'dev-4';
            UPDATE device_groups SET group_id = 'all';
            UPDATE rollwave_api_keys SET key_id = 'dev-1', secret_sha256 = tenant_id::bytea;
            INSERT INTO device_groups (tenant_id, group_id) SELECT tenant_id, 'dev-1' FROM tenants;
            INSERT INTO devices (tenant_id, device_id)
                SELECT tenant_id, d FROM tenants, unnest(ARRAY['dev-2', 'of-' || tenant_id]) AS d;
            DELETE FROM device_group_members;
            INSERT INTO device_group_members SELECT tenant_id, g, 'of-' || tenant_id
                FROM tenants, unnest(ARRAY['all', 'dev-1']) AS g;
            INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)
                SELECT 'south', 7, 'more-' || n FROM generate_series(1, 5) AS n;
            INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, error_message)
                SELECT tenant_id, 7, 'spared', 'SKIPPED', 'of ' || tenant_id FROM tenants;
            INSERT INTO firmware_versions (id, tenant_id, version, file_url)
                SELECT 8, tenant_id, 'unused', 'https://' || tenant_id || '.invalid' FROM tenants;
            INSERT INTO ota_quarantine (tenant_id, device_id, reason, payload)
                SELECT 'south', 'dev-1', 'south', '' FROM generate_series(1, 3);
            INSERT INTO ota_campaign_history (tenant_id, campaign_id, event, actor) VALUES ('south', 7, 'south', 'y');
            INSERT INTO rollwave_group_imports (id, tenant_id, group_id, created_by, expires_at)
                SELECT 8, tenant_id, 'all', 'k', '-infinity' FROM tenants;
        """)
        await connection.execute(UNDER_DOCUMENTS)
        yield connection


async def outcome(
    host: Connection, name: str, sql: str, *, guarded: bool, arguments: Sequence[object] | None = None
) -> tuple[str, str]:
    """The result of a statement, and the other tenant's rows after it. It is rolled back."""
    tables = await tenant_tables(host)
    transaction = host.transaction()
    await transaction.start()
    try:
        if guarded:
            await host.execute("SET LOCAL ROLE pulse_app; SET LOCAL app.tenant_id = 'north'")
        prepared = await host.prepare(sql)
        rows = await prepared.fetch(*(arguments or _arguments(name, sql, prepared.get_parameters())))
        await host.execute("RESET ROLE")
        others = [
            await host.fetchval(f"SELECT jsonb_agg(t ORDER BY t::text)::text FROM {table} t WHERE tenant_id = 'south'")
            for table in tables
        ]
    except asyncpg.PostgresError as error:
        return str(error), ""
    finally:
        await transaction.rollback()
    return repr([_timeless(row) for row in rows]), repr(others)


def _arguments(name: str, sql: str, types: tuple[Any, ...]) -> Iterator[object]:
    for number, each in enumerate(types, start=1):
        if number == 1:
            yield "north"
        elif number in _ARGUMENTS.get(name, {}):
            yield _ARGUMENTS[name][number]
        elif re.search(rf"\${number}(::\w+)? IS NULL OR", sql):
            yield None
        elif re.search(rf"LIMIT \${number}\b", sql):
            yield 100
        elif re.search(rf"\${number}(::text)?::jsonb\b", sql):
            yield "{}"
        else:
            yield _BY_TYPE[each.name]


def _timeless(row: asyncpg.Record) -> list[object]:
    return ["some time" if name in {"took", "due_in"} or name.endswith("_at") else value for name, value in row.items()]


async def test_a_statement_without_its_tenant_predicate_touches_no_row_of_another_tenant(host: Connection) -> None:
    tables = re.compile(rf"\b({'|'.join(await tenant_tables(host))})\b")
    theirs = await outcome(host, "", "SELECT $1::text", guarded=True)
    number = would_leak = 0
    for name, sql in every_statement():
        if not tables.search(sql) or name in _NAME_NO_TENANT:
            continue
        number += 1
        assert stripped(sql) != sql, name
        assert not re.search(r"tenant_id\s*=\s*\$1", stripped(sql)), name
        meant = await outcome(host, name, sql, guarded=False)
        assert meant[1] == theirs[1], f"{name} as it is: {meant[0]}"
        assert await outcome(host, name, stripped(sql), guarded=True) == meant, name
        if await outcome(host, name, stripped(sql), guarded=False) != meant:
            would_leak += 1
    assert would_leak > 0.8 * number, "most would read or change the twin's rows if row-level security were not"
    assert number > 55


async def test_placing_without_the_tenant_predicate_touches_no_row_of_another_tenant(host: Connection) -> None:
    await host.execute("UPDATE devices SET device_type = 'pump', attributes = '{\"site\": \"a\"}'")
    theirs = await outcome(host, "", "SELECT $1::text", guarded=True)
    statements = await placing_statements.statements(host, "north", 7, "all")
    would_leak = 0
    for name, sql, arguments in statements:
        assert stripped(sql) != sql, name
        meant = await outcome(host, name, sql, guarded=False, arguments=arguments)
        assert meant[1] == theirs[1], f"{name} as it is: {meant[0]}"
        assert await outcome(host, name, stripped(sql), guarded=True, arguments=arguments) == meant, name
        if await outcome(host, name, stripped(sql), guarded=False, arguments=arguments) != meant:
            would_leak += 1
    assert would_leak > 0.8 * len(statements)
    assert len(statements) > 20
