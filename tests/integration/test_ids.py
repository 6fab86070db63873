"""Ids with any characters pass through the database, the broker and the API unchanged."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from rollwave.domain.ids import ID_PATTERN, UNADDRESSABLE, is_valid_id
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.mqtt.payload import encode_report
from rollwave.store import access
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from rollwave.store.queries import load
from tests.api import CAMPAIGNS, assert_problem, calling, prepare_campaign_body
from tests.engine import (
    Command,
    always_succeeds,
    breakdown,
    campaign_row,
    connect,
    devices,
    events,
    incoming_report,
    insert_campaign,
    mark_sent,
    wait_until_ended,
    worker,
)
from tests.in_process import ingest
from tests.servers import Mosquitto
from tests.support import eventually, psql, rollwave

IDS = [
    *("Pump 7", "gerät@1", "a..b", ".", "..", "a%2Fb", "日本", "\U0001f469\u200d\U0001f527 1", "a$b", "~", "*", ">"),
    *(
        "e\u0301",
        "\u00e9",
        "a\u202eb",
        "'; DROP TABLE devices; --",
        "\\",
        '"',
        "{device}",
        "x" * 128,
        "\U0001f600" * 128,
    ),
]
TENANT = "Süd's \\ 1'; --"
NO_IDS = ["", "a/b", "+", "#", "tab\there", "\x85", "\uffff", "\U0001ffff", "\ufdd0", " a", "a\u00a0", "$a", "x" * 129]


async def whole_campaign(database: str, broker_url: str, log: Path) -> None:
    async with (
        connect(database) as host,
        devices(broker_url, always_succeeds) as fleet,
        worker(database, broker_url, log) as running,
    ):
        campaign = await insert_campaign(host, [*IDS, *NO_IDS], tenant=TENANT, rollout_rate=100)
        await wait_until_ended(host, campaign, tenant=TENANT)
        assert await breakdown(host, campaign, TENANT) == {"SUCCESS": len(IDS), "SKIPPED": len(NO_IDS)}
        assert await campaign_row(host, campaign, TENANT) == ("COMPLETED", len(IDS), 0)
        assert sorted(command.device for command in fleet.commands_of(campaign, TENANT)) == sorted(IDS)
        assert not events(running, "ota_mqtt_publish_failed")
        assert not events(running, "ota_status_bad_topic")


async def test_a_campaign_with_unusual_ids_completes_over_mosquitto(
    database: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    await whole_campaign(database, mosquitto.url, tmp_path / "log")


async def test_a_campaign_with_unusual_ids_completes_over_the_embedded_broker(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    await whole_campaign(database, broker.url, tmp_path / "log")


async def test_postgresql_and_python_accept_the_same_ids(pool: Pool) -> None:
    odd = [*range(1, 0x300), 0x1680, 0x180E, *range(0x1FF0, 0x2080), 0x3000, 0xFDCF, *range(0xFDD0, 0xFDF2), 0xFEFF]
    odd += [plane * 0x10000 + last for plane in range(17) for last in (0xFFFD, 0xFFFE, 0xFFFF)]
    texts = [text for each in map(chr, odd) for text in (each, f"{each}a", f"a{each}", f"a{each}b")]
    texts += [*IDS, *NO_IDS, "ü" * 128, "ü" * 129]
    claim = load("executions")["claim"].replace("$6", "$2")
    [condition] = re.findall(r'(device_id COLLATE "C" !~ \$2 AND length\(device_id\) <= \d+) AS addressable', claim)
    published = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
    rows = await pool.fetch(
        f"SELECT device_id, {condition} AS addressable FROM unnest($1::text[]) AS t (device_id)",
        *(texts, UNADDRESSABLE),
    )
    found = [(row["device_id"], row["addressable"]) for row in rows]
    assert [text for text, addressable in found if addressable != is_valid_id(text)] == []
    assert [text for text, addressable in found if addressable != (published.search(text) is not None)] == []
    assert len({addressable for _, addressable in found}) == 2


async def test_the_api_accepts_and_returns_every_valid_id(pool: Pool) -> None:
    async with calling(pool, TENANT) as client:
        for each in IDS:
            path = f"/devices/{encoded(each)}"
            assert (await client.put(path, json={"device_type": "pump"})).json()["device_id"] == each
            assert (await client.get(path)).json()["device_id"] == each
        answer = await client.get("/devices")
        assert [row["device_id"] for row in answer.json()["devices"]] == sorted(IDS)
        first = (await client.get("/devices", params={"limit": 10})).json()
        rest = await client.get("/devices", params={"cursor": first["next_cursor"]})
        assert [row["device_id"] for row in first["devices"] + rest.json()["devices"]] == sorted(IDS)
        body = await prepare_campaign_body(client, *IDS)
        for group in IDS:
            path = f"/device-groups/{encoded(group)}"
            assert (await client.put(path, json={"device_ids": IDS})).json()["total"] == len(IDS)
            assert (await client.get(path)).json()["group_id"] == group
            begun = await client.post(f"{path}/imports")
            assert begun.json()["group_id"] == group
            assert (await client.delete(f"http://test{begun.headers['Location']}")).status_code == 204
        made = await client.post(CAMPAIGNS, json=body | {"target_group_id": IDS[0]})
        listed = await client.get(f"{CAMPAIGNS}/{made.json()['id']}/devices")
        assert sorted(row["device_id"] for row in listed.json()["devices"]) == sorted(IDS)


def encoded(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")


@pytest.mark.parametrize("path", ["/devices/a%FFb", "/devices/%C3", "/device-groups/%ED%A0%80"])
async def test_invalid_utf_8_in_a_path_is_no_device(pool: Pool, path: str) -> None:
    async with calling(pool) as client:
        assert_problem(await client.get(path), 422, "invalid-input")
        assert_problem(await client.put(path, json={"device_ids": []}), 422, "invalid-input")


async def test_an_api_key_encodes_any_tenant_id_in_exactly_one_way(pool: Pool) -> None:
    for tenant in ("a:b.c_d-e", TENANT, "日本", "a%2Eb", "\U0001f600" * 128):
        key = await access.create(pool, tenant, Role.VIEWER)
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key
        grant = await access.verify(pool, key)
        assert grant is not None
        assert grant.tenant_id == tenant
    plain = await access.create(pool, "a:b.c_d-e", Role.VIEWER)
    assert plain.startswith("rollwave.a:b.c_d-e.")
    for other in (plain.replace("a:b", "%61:b"), plain.replace("a:b", "a%3Ab"), plain.replace("a:b", "a%:b")):
        assert await access.verify(pool, other) is None


async def test_a_tenant_sees_its_own_rows_whatever_its_id(pool: Pool) -> None:
    names = [TENANT, TENANT.upper(), "x' OR '1'='1", "\\'", "\\", "e\u0301", "\u00e9"]
    for name in names:
        async with calling(pool, name) as client:
            assert (await client.put("/devices/d", json={"attributes": {"of": name}})).is_success
    for name in names:
        async with calling(pool, name) as client:
            [device] = (await client.get("/devices")).json()["devices"]
            assert device["attributes"] == {"of": name}


def test_invalid_utf_8_in_a_key_is_no_tenant(database: str) -> None:
    for words in (("quarantine", "list"), ("apikey", "list"), ("apikey", "create", "--role", "viewer")):
        refused = rollwave(*words, "--tenant", "a\udcff", env={"DATABASE_URL": database})
        assert (refused.returncode, refused.stderr.startswith("error: ")) == (1, True), refused.stderr


@pytest.fixture
async def latin1(postgres_url: str) -> AsyncIterator[str]:
    psql(postgres_url, "CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    url = postgres_url.replace("@/postgres?", "@/latin1?")
    await migrate(url)
    yield url
    psql(postgres_url, "DROP DATABASE latin1 WITH (FORCE)")


async def test_a_latin1_database_stores_what_it_can_and_the_engine_continues(
    latin1: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    def chatty(command: Command) -> Sequence[bytes]:
        return [encode_report(command.campaign, "FAILED", error="日本 is no LATIN1"), *always_succeeds(command)]

    async with (
        connect(latin1) as host,
        devices(broker.url, chatty) as fleet,
        worker(latin1, broker.url, tmp_path / "log", OTA_MAX_ATTEMPTS="1") as running,
    ):
        fleet.report("dev-1", 1, "SUCCESS", tenant="日本")
        fleet.report("日本", 1, "SUCCESS")
        campaign = await insert_campaign(host, ["gerät@1", "Ä b", "dev-1"], abort_threshold=1.0)
        fleet.report("日本", campaign, "SUCCESS")
        await wait_until_ended(host, campaign)
        assert await breakdown(host, campaign) == {"FAILED": 3}
        await eventually(lambda: events(running, "ota_status_invalid_data"), what="the invalid report is logged")
        assert not events(running, "ota_reports_delayed")
        assert not events(running, "ota_campaign_error")


@pytest.fixture
async def sql_ascii(postgres_url: str) -> AsyncIterator[str]:
    psql(postgres_url, "CREATE DATABASE bytewise TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    url = postgres_url.replace("@/postgres?", "@/bytewise?")
    await migrate(url)
    yield url
    psql(postgres_url, "DROP DATABASE bytewise WITH (FORCE)")


async def test_a_sql_ascii_database_stores_the_whole_text_of_a_failure(sql_ascii: str) -> None:
    """It takes any bytes as text, and no escape beyond ASCII in JSON."""
    async with create_pool(sql_ascii) as pool, connect(sql_ascii) as host:
        campaign = await insert_campaign(host, 1, abort_threshold=1.0)
        await mark_sent(host, campaign, ["dev-1"])
        await ingest(pool, [incoming_report("dev-1", campaign, "FAILED", error="défaut")])
        assert await host.fetchval("SELECT error_message FROM ota_device_status") == "défaut"
        [reason] = await host.fetch(
            "SELECT detail ->> 'reason' AS reason FROM ota_campaign_history WHERE event = 'attempt_failed'"
        )
        assert reason["reason"] == "défaut"


async def test_over_http_a_latin1_database_refuses_what_it_cannot_store(latin1: str) -> None:
    missing = "\U0001f600"
    async with create_pool(latin1) as pool, calling(pool) as north:
        assert (await north.put("/devices/gerät@1", json={"device_type": "pümp"})).status_code == 200
        assert (await north.get("/devices", params={"device_type": "pümp"})).json()["total"] == 1
        for path in (f"/devices/{missing}", f"/device-groups/{missing}", "/device-groups/日本"):
            assert_problem(await north.get(path), 404, "not-found")
        assert_problem(await north.delete(f"/device-groups/{missing}/imports/1"), 404, "not-found")
        for path, field in (
            ("/devices", "device_type"),
            ("/devices", "cursor"),
            ("/device-groups", "cursor"),
            ("/firmware", "device_type"),
        ):
            refused = assert_problem(await north.get(path, params={field: missing}), 422, "invalid-input")
            assert [(each["location"], each["field"]) for each in refused["errors"]] == [("query", field)]
        imports = "/device-groups/all/imports"
        number = (await north.post(imports)).json()["import_id"]
        for location, field, answer in (
            ("path", "group_id", await north.post(f"/device-groups/{missing}/imports")),
            ("body", "device_ids", await north.post(f"{imports}/{number}/devices", json={"device_ids": [missing]})),
            ("path", "device_id", await north.put(f"/devices/{missing}", json={})),
            ("body", "device_type", await north.put("/devices/a", json={"device_type": missing})),
            ("body", "version", await north.post("/firmware", json={"version": missing, "file_url": "https://h/f"})),
        ):
            refused = assert_problem(answer, 422, "invalid-input")
            assert [(each["location"], each["field"]) for each in refused["errors"]] == [(location, field)]
        described = {"device_ids": [], "devices": [{"device_id": "a", "attributes": {"k": missing}}]}
        for method, path in (("PUT", "/device-groups/all"), ("POST", f"{imports}/{number}/devices")):
            assert_problem(await north.request(method, path, json=described), 422, "invalid-input")
        body = await prepare_campaign_body(north)
        for field in ("name", "target_group_id"):
            assert (await north.post(CAMPAIGNS, json=body | {field: missing})).status_code in {404, 422}
        key = f"rollwave.{quote(missing)}.{'a' * 16}.x"
        answer = await north.get("/devices", headers={"Authorization": f"Bearer {key}"})
        assert_problem(answer, 401, "unauthorized")


async def test_reports_of_devices_not_sent_to_are_logged_at_intervals(
    database: str, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    async with (
        connect(database) as host,
        devices(broker.url) as fleet,
        worker(database, broker.url, tmp_path / "log") as running,
    ):
        paused = await insert_campaign(host, 60, status="PAUSED")
        south = await insert_campaign(host, 1, tenant="south", status="PAUSED")
        skipped = await insert_campaign(host, 1, status="ABORTED")
        await host.execute("UPDATE ota_device_status SET status = 'SKIPPED' WHERE campaign_id = $1", skipped)
        for number in range(1, 61):
            fleet.report(f"dev-{number}", paused, "SUCCESS")
        fleet.report("dev-1", south, "SUCCESS", tenant="south")
        fleet.report("dev-1", skipped, "FAILED")
        await fleet.wait_until_delivered()
        fleet.report("nobody", skipped, "SUCCESS")
        await eventually(lambda: events(running, "ota_status_unknown"), what="all of this tenant are taken in")
        await eventually(lambda: len(events(running, "ota_status_not_sent")) >= 3, what="and the other tenant's")
        refusals = {event["campaign_id"]: event for event in events(running, "ota_status_not_sent")}
        assert len(events(running, "ota_status_not_sent")) == 3, "one line for each campaign"
        assert {number: each["tenant_id"] for number, each in refusals.items()} == {
            paused: "north",
            south: "south",
            skipped: "north",
        }
        assert refusals[paused]["status"] == "SUCCESS"
        assert refusals[paused]["device_id"].startswith("dev-")
        assert "has not sent" in refusals[paused]["hint"]
        assert await breakdown(host, paused) == {"PENDING": 60}
        assert await breakdown(host, skipped) == {"SKIPPED": 1}
