"""Writes to a host's tables whose columns have other types: done, or refused with the column's name."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from rollwave.errors import SchemaMismatch
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate
from tests.api import CAMPAIGNS, calling
from tests.engine import connect
from tests.host.platform import make_host

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


class Request(NamedTuple):
    method: str
    path: str
    body: dict[str, object]


FIRMWARE = Request("POST", "/firmware", {"version": "9", "file_url": "https://files.invalid/9", "device_type": "pump"})
CAMPAIGN = Request(
    "POST",
    CAMPAIGNS,
    {"name": "c", "firmware_version_id": 1, "target_group_id": "all", "rollout_rate": 5, "abort_threshold": 0.123456},
)
DEVICE = Request("PUT", "/devices/new", {"device_type": "pump", "attributes": {"site": "north"}})
NO_TYPE = Request("PUT", "/devices/new", {})
GROUP = Request("PUT", "/device-groups/new", {"device_ids": ["dev-1", "new-1"]})
ABORT = Request("POST", f"{CAMPAIGNS}/3/abort", {"reason": "enough"})

SERIAL = """
ALTER TABLE devices ADD serial text;
UPDATE devices SET serial = id;
ALTER TABLE devices ALTER serial SET NOT NULL"""
SIGNED = """
ALTER TABLE firmware_versions ADD signed boolean DEFAULT true;
ALTER TABLE firmware_versions ALTER signed DROP DEFAULT, ALTER signed SET NOT NULL"""
NO_PUMPS = """
CREATE POLICY no_pumps ON firmware_versions AS RESTRICTIVE FOR INSERT WITH CHECK (device_type <> 'pump')"""
KINDS = """
CREATE TYPE kind AS ENUM ('valve');
ALTER TABLE firmware_versions ALTER device_type TYPE kind USING NULL"""
SITES = """
CREATE DOMAIN site AS jsonb CHECK (VALUE ? 'id');
ALTER TABLE devices ADD attributes site NOT NULL DEFAULT '{"id": 1}'"""
NOT_NEW = """
CREATE DOMAIN old_id AS varchar(100) CHECK (VALUE NOT LIKE 'new%');
ALTER TABLE devices ALTER device_id TYPE old_id"""
NEVER_NULL = """
CREATE DOMAIN label AS varchar(20) NOT NULL DEFAULT 'none';
ALTER TABLE firmware_versions ADD label label DEFAULT 'none', ALTER device_type TYPE varchar(2) USING 'x'"""


@pytest.mark.parametrize(
    ("alteration", "request_", "status", "words"),
    [
        ("ALTER TABLE firmware_versions ADD artifact integer NOT NULL DEFAULT 1", FIRMWARE, 201, ""),
        (SIGNED, FIRMWARE, 409, "signed"),
        ("ALTER TABLE firmware_versions ADD UNIQUE (tenant_id, version) DEFERRABLE", FIRMWARE, 409, "deferrable"),
        ("ALTER TABLE firmware_versions ALTER created_by TYPE integer USING NULL", FIRMWARE, 409, "created_by"),
        ("ALTER TABLE firmware_versions ALTER created_by TYPE varchar(8)", FIRMWARE, 409, "created_by"),
        (NO_PUMPS, FIRMWARE, 409, "row-level security"),
        (KINDS, FIRMWARE, 409, "device_type"),
        (NEVER_NULL, FIRMWARE, 409, "character varying(2)"),
        ("ALTER TABLE ota_campaigns ALTER created_by TYPE uuid USING NULL", CAMPAIGN, 409, "created_by"),
        ("ALTER TABLE ota_campaigns ALTER abort_threshold TYPE numeric(3, 2)", CAMPAIGN, 201, ""),
        ("ALTER TABLE ota_campaigns ALTER abort_threshold TYPE real", CAMPAIGN, 201, ""),
        (
            "ALTER TABLE ota_campaigns ALTER rollout_strategy TYPE varchar(4) USING ''",
            CAMPAIGN,
            422,
            "rollout_strategy: ",
        ),
        ("ALTER TABLE ota_campaigns ADD CHECK (total_devices < 10) NOT VALID", CAMPAIGN, 409, "total_devices_check"),
        ("ALTER TABLE ota_campaigns ALTER total_devices TYPE smallint", CAMPAIGN, 201, ""),
        ("ALTER TABLE ota_campaigns ADD CHECK (status <> 'ABORTED' OR id < 3)", ABORT, 409, "ota_campaigns_check"),
        ("ALTER TABLE devices ADD device_type varchar(50) NOT NULL DEFAULT 'x'", NO_TYPE, 422, "device_type: "),
        (SERIAL, DEVICE, 409, "serial"),
        (SERIAL, GROUP, 409, "serial"),
        (SITES, DEVICE, 422, "attributes: "),
        (NOT_NEW, GROUP, 422, "device_ids: 'new-1' "),
    ],
)
async def test_a_write_succeeds_or_names_the_refused_column(
    empty_database: str, alteration: str, request_: Request, status: int, words: str
) -> None:
    host = await make_host(empty_database)
    async with connect(host.owner) as owner:
        await owner.execute(alteration)
    await migrate(host.root, grant_to="rollwave_worker")
    async with create_pool(host.worker) as pool, calling(pool, "north") as north:
        answer = await north.request(request_.method, request_.path, json=request_.body)
        assert answer.status_code == status, answer.text
        assert words in json.dumps(answer.json(), ensure_ascii=False)


ENUMERATIONS = """
CREATE TYPE kind AS ENUM ('pump', 'valve');
ALTER TABLE firmware_versions ALTER device_type TYPE kind USING 'pump';
ALTER TABLE devices ADD device_type kind DEFAULT 'valve'"""


async def test_filters_on_enumeration_columns_are_answered(empty_database: str) -> None:
    host = await make_host(empty_database)
    async with connect(host.owner) as owner:
        await owner.execute(ENUMERATIONS)
    await migrate(host.root, grant_to="rollwave_worker")
    async with create_pool(host.worker) as pool, calling(pool, "north") as north:
        for path in ("/firmware", "/devices"):
            everything = (await north.get(path)).json()["total"]
            found = [
                (await north.get(path, params={"device_type": kind})).json()["total"]
                for kind in ("pump", "valve", "fridge")
            ]
            assert found == ([everything, 0, 0] if path == "/firmware" else [0, everything, 0])
        assert (await north.put("/devices/dev-1", json={"device_type": "pump"})).json()["device_type"] == "pump"
        answer = await north.post(CAMPAIGNS, json=CAMPAIGN.body | {"abort_threshold": 0.5})
        assert answer.status_code == 201, answer.text
        devices = await north.get(f"{CAMPAIGNS}/{answer.json()['id']}/devices")
        statuses = {each["device_id"]: each["status"] for each in devices.json()["devices"]}
        assert statuses.pop("dev-1") == "PENDING"
        assert set(statuses.values()) == {"SKIPPED"}


async def test_an_unsuitable_column_type_is_logged(empty_database: str, caplog: pytest.LogCaptureFixture) -> None:
    host = await make_host(empty_database)
    async with connect(host.owner) as owner:
        await owner.execute(KINDS)
    await migrate(host.root, grant_to="rollwave_worker")
    async with create_pool(host.worker) as pool, calling(pool, "north") as north:
        assert (await north.request(*FIRMWARE[:2], json=FIRMWARE.body)).status_code == 409
        [record] = [each for each in caplog.records if each.getMessage() == "ota_type_mismatch"]
        assert record.levelname == "WARNING"
        assert "device_type" in vars(record)["error"]
        await north.request(*DEVICE[:2], json=DEVICE.body)
        assert [each.getMessage() for each in caplog.records].count("ota_type_mismatch") == 1


async def test_a_hosts_column_with_the_name_of_an_added_one_and_another_type_stops_the_migration(
    empty_database: str,
) -> None:
    host = await make_host(empty_database)
    async with connect(empty_database) as root:
        await root.execute("ALTER TABLE ota_device_status ADD segment varchar(20), ADD position bigint DEFAULT 0")
        with pytest.raises(SchemaMismatch) as refused:
            await migrate(empty_database)
        assert str(refused.value) == (
            "ota_device_status.segment has the type character varying(20), "
            "and the engine's column of this name is integer"
        )
        assert "RENAME COLUMN segment TO host_segment" in refused.value.hint
        assert not await root.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'rollwave_migrations'")
        await root.execute("ALTER TABLE ota_device_status RENAME COLUMN segment TO host_segment")
    assert "applied 0020_policies.sql" in host.migrate()
