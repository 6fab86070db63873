"""The labels of devices: where they come from, and that neither a report nor a search costs more than it must."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from rollwave.doctor.database import examine_database
from rollwave.doctor.finding import State
from rollwave.domain.policy.selector.text import parse
from rollwave.engine.ingest import seen
from rollwave.engine.ingest.commit import Ingest
from rollwave.settings import Settings
from rollwave.store import labels, selected_devices
from rollwave.store.database import Connection as Inside
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.selector_sql import compile_selector, label_order, label_text
from tests.api import assert_problem, calling
from tests.engine import Connection, connect, incoming_report, insert_campaign

VIEW = """
CREATE TABLE things (tenant text, name text, of_type text, running text, zone text, seen timestamp, extra json);
CREATE VIEW rollwave_devices WITH (security_invoker) AS
SELECT tenant AS tenant_id, name AS device_id, of_type AS device_type, running AS version, zone AS time_zone,
       seen AS last_seen, extra AS labels
FROM things;
GRANT SELECT ON things, rollwave_devices TO pulse_app;
INSERT INTO things VALUES ('north', 'a', 'pump', '1.9', 'UTC', '2027-01-01', '{"site": "x"}'),
                          ('north', 'b', 'pump', '1.10', NULL, NULL, '{"site": "y", "time_zone": "Asia/Tokyo"}'),
                          ('south', 'a', 'pump', '9', NULL, NULL, '{"site": "x"}');
"""


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def found(north: httpx2.AsyncClient, select: str, **query: Any) -> list[str]:
    answer = await north.get("/devices", params={"select": select, **query})
    assert answer.status_code == 200, answer.text
    return [row["device_id"] for row in answer.json()["devices"]]


async def test_fields_of_a_device_are_labels_and_attributes_stand_in_for_empty_ones(north: httpx2.AsyncClient) -> None:
    body = {"device_type": "pump", "time_zone": "Asia/Tokyo", "version": "1.10", "attributes": {"site": "x"}}
    first = (await north.put("/devices/a", json=body)).json()
    assert first.items() >= body.items()
    assert first == (await north.get("/devices/a")).json()
    await north.put("/devices/b", json={"attributes": {"version": "1.9", "time_zone": "Asia/Tokyo"}})
    assert await found(north, "time_zone == 'Asia/Tokyo'") == ["a", "b"]
    assert await found(north, "version > 1.9") == ["a"]
    # A version that is left out stays, since the device may have reported it. Everything else is replaced.
    again = (await north.put("/devices/a", json={})).json()
    assert (again["time_zone"], again["version"], again["attributes"]) == (None, "1.10", {})
    assert (await north.put("/devices/a", json={"version": None})).json()["version"] is None
    wrong = assert_problem(await north.put("/devices/a", json={"time_zone": "Mars/Olympus"}), 422, "invalid-input")
    assert wrong["errors"][0]["field"] == "time_zone"


async def test_a_selector_lists_its_devices_in_pages(north: httpx2.AsyncClient) -> None:
    for number in range(5):
        await north.put(f"/devices/d{number}", json={"device_type": "pump", "attributes": {"n": number}})
    answer = (await north.get("/devices", params={"select": "n >= 1", "limit": 2, "device_type": "pump"})).json()
    assert ([row["device_id"] for row in answer["devices"]], answer["total"]) == (["d1", "d2"], 4)
    assert answer["devices"][0] == (await north.get("/devices/d1")).json()
    rest = await found(north, "n >= 1", cursor=answer["next_cursor"])
    assert rest == ["d3", "d4"]
    wrong = assert_problem(await north.get("/devices", params={"select": "n =! 1"}), 422, "invalid-input")
    assert wrong["errors"] == [
        {
            "location": "query",
            "field": "select",
            "detail": "line 1, column 4: '!' is not expected here; expected: a value",
        }
    ]


async def test_a_selector_that_takes_too_long_is_too_broad(
    north: httpx2.AsyncClient, host: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.execute(
        "INSERT INTO devices (tenant_id, device_id, attributes)"
        " SELECT 'north', 'd' || n, '{\"a\": \"x\"}' FROM generate_series(1, 20000) AS n"
    )
    monkeypatch.setattr(selected_devices, "TIMEOUT_SECONDS", 0.01)
    answer = await north.get("/devices", params={"select": " or ".join(f"a like 'y{n}*z*'" for n in range(32))})
    assert "too broad" in assert_problem(answer, 422, "invalid-input")["detail"]


@pytest.mark.parametrize("tenants", [["north"], ["north", "south"]])
async def test_reports_store_when_a_device_was_seen_and_the_version_that_it_updated_to(
    pool: Pool, host: Connection, tenants: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, campaigns = [], {}
    for tenant in tenants:
        campaigns[tenant] = await insert_campaign(host, 3, tenant=tenant, pending=3)
        await host.execute("UPDATE firmware_versions SET version = '2.0'")
        await host.execute("UPDATE ota_device_status SET attempt = 1, sent_attempt = 1")
        batch += [
            incoming_report("dev-2", campaigns[tenant], "SUCCESS", tenant=tenant),
            incoming_report("dev-1", campaigns[tenant], "DOWNLOADING", tenant=tenant),
            incoming_report("nobody", campaigns[tenant], "SUCCESS", tenant=tenant),
        ]
    ingest = Ingest(pool, Settings())
    await ingest.take_in(batch)
    assert not await host.fetch("SELECT device_id FROM rollwave_device_fields"), "executions say all of this"
    monkeypatch.setattr(seen, "DEFERRED_SECONDS", 0.0)
    in_progress = [incoming_report("dev-1", campaigns[tenant], "INSTALLING", tenant=tenant) for tenant in tenants]
    await ingest.take_in(in_progress)
    rows = await host.fetch(
        "SELECT tenant_id, device_id, version, last_seen > now() - interval '1 minute' AS now"
        " FROM rollwave_device_fields ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [(tenant, "dev-1", None, True) for tenant in tenants]
    assert await host.fetchval(
        "SELECT bool_and(version_key IS NOT DISTINCT FROM rollwave_version_key(version)) FROM rollwave_device_fields"
    )
    # Within an hour, another report changes nothing: neither in this process nor in one that has just started.
    before = await host.fetch("SELECT xmin::text, * FROM rollwave_device_fields ORDER BY 2, 3")
    for each in (ingest, Ingest(pool, Settings())):
        ended = [incoming_report("dev-2", campaigns[tenant], "SUCCESS", tenant=tenant) for tenant in tenants]
        await each.take_in(in_progress + ended)
    assert await host.fetch("SELECT xmin::text, * FROM rollwave_device_fields ORDER BY 2, 3") == before
    await host.execute("UPDATE rollwave_device_fields SET last_seen = now() - interval '61 minutes'")
    await Ingest(pool, Settings()).take_in(
        [incoming_report("dev-1", campaigns[tenant], "SUCCESS", tenant=tenant) for tenant in tenants]
    )
    await host.execute("INSERT INTO devices (tenant_id, device_id) SELECT tenant_id, 'dev-1' FROM tenants")
    for tenant in tenants:
        row = await host.fetchrow(
            "SELECT version, last_seen > now() - interval '1 minute' FROM rollwave_registered($1)", tenant
        )
        assert row is not None
        assert tuple(row) == ("2.0", True)


async def test_a_version_that_a_device_reports_is_stored_at_once_and_counts_before_the_firmwares(
    pool: Pool, host: Connection
) -> None:
    campaign = await insert_campaign(host, 1, pending=1)
    await host.execute("UPDATE firmware_versions SET version = '2.0'; UPDATE ota_device_status SET attempt = 1")
    ingest = Ingest(pool, Settings())
    for status, version, expected in (
        ("DOWNLOADING", None, None),
        ("DOWNLOADING", "1.0", "1.0"),
        ("INSTALLING", "1.1", "1.1"),
        ("SUCCESS", "2.0-field", "2.0-field"),
    ):
        report = json.loads(incoming_report("dev-1", campaign, status).payload) | {"progress": 50 if version else 10}
        body = json.dumps(report | ({"version": version} if version else {})).encode()
        await ingest.take_in([replace(incoming_report("dev-1", campaign, status), payload=body)])
        assert await host.fetchval("SELECT version FROM rollwave_device_fields") == expected


async def test_a_hosts_view_is_read_in_place_of_the_registry(north: httpx2.AsyncClient, host: Connection) -> None:
    await north.put("/devices/registered", json={"attributes": {"site": "x"}})
    await host.execute(VIEW)
    answer = (await north.get("/devices", params={"select": "site == x or version >= 1.10"})).json()
    assert [(row["device_id"], row["version"], row["time_zone"]) for row in answer["devices"]] == [
        ("a", "1.9", "UTC"),
        ("b", "1.10", "Asia/Tokyo"),
    ]
    assert answer["devices"][0].items() >= {"attributes": {"site": "x"}, "last_seen": "2027-01-01T00:00:00Z"}.items()
    await host.execute("CREATE ROLE other; ALTER VIEW rollwave_devices OWNER TO other")
    assert await found(north, "site == x") == ["registered"], "it does not belong to the schema's owner"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("REVOKE SELECT ON things FROM pulse_app", "permission denied for table things"),
        ("ALTER VIEW rollwave_devices RENAME tenant_id TO t", "column v.tenant_id does not exist"),
    ],
)
async def test_a_search_says_why_a_hosts_view_cannot_be_read(
    host: Connection, north: httpx2.AsyncClient, change: str, reason: str
) -> None:
    await host.execute(VIEW)
    await host.execute(change)
    problem = assert_problem(await north.get("/devices?select=has(x)"), 409, "conflict")
    assert f"cannot be read: {reason}" in problem["detail"]


async def test_the_doctor_checks_a_hosts_view(database: str, host: Connection) -> None:
    async def finding() -> tuple[State, str]:
        found = await examine_database(Settings(database_url=database))
        return next((each.state, each.text) for each in found if each.check == "labels")

    assert await finding() == (State.OK, "they come from the registry of devices")
    await host.execute(VIEW)
    assert await finding() == (State.OK, "they come from the host's view rollwave_devices")
    await host.execute("ALTER VIEW rollwave_devices SET (security_invoker = off)")
    state, text = await finding()
    assert state is State.WARNING
    assert "with the rights of postgres" in text
    await host.execute("REVOKE SELECT ON rollwave_devices FROM pulse_app")
    state, text = await finding()
    assert state is State.PROBLEM
    assert "permission denied for view rollwave_devices" in text
    await host.execute("CREATE ROLE other_owner; ALTER VIEW rollwave_devices OWNER TO other_owner")
    state, text = await finding()
    assert state is State.WARNING
    assert "its owner other_owner is not the owner of the schema" in text


async def test_values_and_order_of_a_label(pool: Pool, host: Connection) -> None:
    values = {"a": "x", "b": 10, "c": 9.0, "d": None, "e": "é", "f": True, "g": "B"}
    await host.execute("INSERT INTO tenants VALUES ('north')")
    for device, value in values.items():
        await host.execute(
            "INSERT INTO devices (tenant_id, device_id, attributes) VALUES ('north', $1, $2)",
            *(device, json.dumps({"k": value, "version": f"1.{10 - ord(device) + ord('a')}"})),
        )
    async with tenant_transaction(pool, "north") as connection:
        source = await labels.source(connection)
        value, order = label_text("k", 3), label_order("k", 3)
        rows = await connection.fetch(
            f"SELECT l.device_id, {value.sql} AS value FROM {source.of_ids('$1', '$2')} AS l ORDER BY {order.sql}, 1",
            *("north", [*reversed(values)], *value.parameters),
        )
        assert [tuple(row) for row in rows] == [
            *(("c", "9"), ("b", "10"), ("g", "B"), ("a", "x"), ("e", "é"), ("d", None), ("f", None))
        ]
        by_version = label_order("version", 3)
        rows = await connection.fetch(
            f"SELECT l.device_id FROM {source.of_ids('$1', '$2')} AS l ORDER BY {by_version.sql}", "north", [*values]
        )
        assert [row["device_id"] for row in rows] == [*reversed(values)]


async def test_a_search_reads_the_devices_of_its_tenant_alone(pool: Pool, host: Connection) -> None:
    """As pulse_app, row-level security lets only the tenant be looked up in an index: ``->>`` is not leakproof."""
    for tenant in ("north", "south", "west"):
        await host.execute(f"INSERT INTO tenants VALUES ('{tenant}')")
        await host.execute(
            f"INSERT INTO devices (tenant_id, device_id, attributes) SELECT '{tenant}', 'd' || n, '{{\"a\": \"x\"}}'"
            " FROM generate_series(1, 5000) AS n"
        )
    await host.execute("ANALYZE devices")
    async with tenant_transaction(pool, "north") as connection:
        source = await labels.source(connection)
        chosen = compile_selector(parse("a == x and b != 2"), 2)
        search = f"SELECT count(*) FROM {source.of_all('$1')} AS l WHERE {chosen.sql}"
        plan = await explain(connection, search, "north", *chosen.parameters)
        assert "Index Cond: (tenant_id = " in plan, plan
        assert "rollwave_device_fields" not in plan, "fields that the selector does not mention are not read"
        chosen = compile_selector(parse("a == x and version > 2"), 3)
        of_ids = f"SELECT {chosen.sql} FROM {source.of_ids('$1', '$2')} AS l"
        plan = await explain(connection, of_ids, "north", [f"d{n}" for n in range(5000)], *chosen.parameters)
        assert plan.count("AND (device_id = i.id))") + plan.count("AND (device_id = d.device_id))") == 3, plan
        assert "Seq Scan" not in plan


async def explain(connection: Inside, sql: str, *values: object) -> str:
    return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}", *values))
