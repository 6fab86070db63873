"""What devices reported is read from their executions, and stored when their campaign has ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.engine.dispatch.session import CommandSession
from rollwave.engine.ingest.commit import Ingest
from rollwave.engine.upkeep.device_fields import store_fields
from rollwave.engine.worker.tick import Ticker
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store import campaigns, labels
from rollwave.store.database import Pool, tenant_transaction
from tests.api import calling
from tests.engine import Connection, connect, incoming_report, insert_campaign
from tests.in_process import ingest

TENANT = "north"


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, TENANT) as client:
        for number in range(1, 4):
            await client.put(f"/devices/dev-{number}", json={})
        yield client


async def sent(host: Connection, version: str, devices: int = 3) -> int:
    """A RUNNING campaign with this version, whose devices have their commands."""
    campaign = await insert_campaign(host, devices, pending=0, downloading=devices, sent=devices)
    await host.execute(
        "UPDATE firmware_versions SET version = $2"
        " WHERE id = (SELECT firmware_version_id FROM ota_campaigns WHERE id = $1)",
        *(campaign, version),
    )
    await host.execute(
        "UPDATE ota_device_status SET attempt = 1, sent_attempt = 1, status = 'DOWNLOADING',"
        " started_at = now() - interval '1 hour', due_at = now() + interval '1 hour' WHERE campaign_id = $1",
        campaign,
    )
    return campaign


def says(device: str, campaign: int, status: str, version: str) -> Incoming:
    incoming = incoming_report(device, campaign, status)
    return replace(incoming, payload=json.dumps(json.loads(incoming.payload) | {"version": version}).encode())


async def versions(north: httpx2.AsyncClient) -> list[str | None]:
    """Of each device, in every way in which they are read."""
    rows: list[dict[str, Any]] = (await north.get("/devices")).json()["devices"]
    listed = [row["version"] for row in rows]
    for row in rows:
        assert row["version"] == (await north.get(f"/devices/{row['device_id']}")).json()["version"]
        select = "not has(version)" if row["version"] is None else f"version == '{row['version']}'"
        found = (await north.get("/devices", params={"select": f"{select} and device_id == {row['device_id']}"})).json()
        assert [each["version"] for each in found["devices"]] == [row["version"]], (select, found)
    return listed


async def stored(host: Connection) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in await host.fetch("SELECT device_id, version FROM rollwave_device_fields ORDER BY 1")]


async def ends(host: Connection, campaign: int) -> CampaignRef:
    await host.execute("UPDATE ota_campaigns SET status = 'COMPLETED' WHERE id = $1", campaign)
    return CampaignRef(TenantId(TENANT), CampaignId(campaign), CampaignStatus.COMPLETED)


async def test_what_devices_reported_is_read_before_and_after_it_is_stored(
    pool: Pool, host: Connection, north: httpx2.AsyncClient
) -> None:
    campaign = await sent(host, "2.0")
    await ingest(
        pool,
        [
            incoming_report("dev-1", campaign, "SUCCESS"),
            incoming_report("dev-2", campaign, "FAILED"),
            says("dev-3", campaign, "SUCCESS", "2.0-field"),
        ],
    )
    assert await stored(host) == [("dev-3", "2.0-field")], "only what the executions do not say is written with reports"
    before = (await north.get("/devices")).json()["devices"]
    assert await versions(north) == ["2.0", None, "2.0-field"]
    assert all(row["last_seen"] for row in before), "a failure is a report too"

    ref = await ends(host, campaign)
    assert await campaigns.due(pool) == [ref], "a worker is told of it"
    await Ticker(pool, CommandSession(Broker.from_url("mqtt://localhost:1")), Settings()).tick()
    assert await campaigns.due(pool) == []
    assert await stored(host) == [("dev-1", "2.0"), ("dev-2", None), ("dev-3", "2.0-field")]
    assert (await north.get("/devices")).json()["devices"] == before
    await host.execute("DELETE FROM ota_device_status; DELETE FROM ota_campaigns")
    assert (await north.get("/devices")).json()["devices"] == before, "a deleted campaign takes nothing with it"
    assert await host.fetchval(
        "SELECT bool_and(version_key IS NOT DISTINCT FROM rollwave_version_key(version)) FROM rollwave_device_fields"
    )


async def test_the_last_word_counts_wherever_it_is(pool: Pool, host: Connection, north: httpx2.AsyncClient) -> None:
    """Two campaigns of one device, versions that it reports, and what an operator sets, in the order of time."""
    first, second = await sent(host, "2.0"), await sent(host, "3.0", 1)
    await ingest(pool, [incoming_report("dev-1", second, "SUCCESS")])
    await ingest(pool, [incoming_report("dev-1", first, "SUCCESS")])
    assert (await versions(north))[0] == "2.0", "the campaign with the lower id was later"
    await store_fields(pool, await ends(host, first))
    await store_fields(pool, await ends(host, second))
    assert (await versions(north))[0] == "2.0", "the other one is stored after it"

    third = await sent(host, "4.0", 1)
    engine = Ingest(pool, Settings())
    await engine.take_in([says("dev-1", third, "DOWNLOADING", "1.0")])
    assert (await versions(north))[0] == "1.0"
    await engine.take_in([incoming_report("dev-1", third, "SUCCESS")])
    assert (await versions(north))[0] == "4.0"
    await engine.take_in([says("dev-1", third, "SUCCESS", "1.0")])
    assert (await versions(north))[0] == "1.0", "it has gone back"
    await north.put("/devices/dev-1", json={"version": "5.0"})
    assert (await versions(north))[0] == "5.0"
    await north.put("/devices/dev-1", json={"version": None, "attributes": {"version": "6.0"}})
    assert (await north.get("/devices", params={"select": "version == 6.0"})).json()["total"] == 1
    await store_fields(pool, await ends(host, third))
    assert (await north.get("/devices/dev-1")).json()["version"] is None


async def test_storing_goes_on_where_it_was_and_begins_again_if_a_device_ends_meanwhile(
    pool: Pool, host: Connection
) -> None:
    campaign = await sent(host, "2.0", 5)
    await ingest(pool, [incoming_report(f"dev-{n}", campaign, "SUCCESS") for n in (1, 2, 3, 4)])
    ref = CampaignRef(TenantId(TENANT), CampaignId(campaign), CampaignStatus.RUNNING)
    assert await store_fields(pool, ref) is None, "its devices may still report"
    await ends(host, campaign)
    async with tenant_transaction(pool, TENANT) as connection:
        unstored = await labels.unstored(connection, TENANT, CampaignId(campaign))
        assert unstored is not None
        assert not await labels.store(connection, TENANT, CampaignId(campaign), unstored, limit=2)
    assert [device for device, _ in await stored(host)] == ["dev-1", "dev-2"]
    await host.execute("DELETE FROM rollwave_device_fields WHERE device_id = 'dev-1'")
    assert await store_fields(pool, ref, batch=2)
    assert [device for device, _ in await stored(host)] == ["dev-2", "dev-3", "dev-4"], "from where it was"

    await host.execute("DELETE FROM rollwave_device_fields")
    await host.execute("UPDATE ota_campaigns SET unstored_after = 'dev-3'")
    async with tenant_transaction(pool, TENANT) as connection:
        unstored = await labels.unstored(connection, TENANT, CampaignId(campaign))
        assert unstored is not None
    await ingest(pool, [incoming_report("dev-5", campaign, "SUCCESS")])
    async with tenant_transaction(pool, TENANT) as connection:
        assert not await labels.store(connection, TENANT, CampaignId(campaign), unstored, limit=9)
    assert await store_fields(pool, ref)
    assert [device for device, _ in await stored(host)] == [f"dev-{n}" for n in range(1, 6)]


async def test_a_device_that_a_host_ended_counts_and_its_clock_may_be_wrong(
    pool: Pool, host: Connection, north: httpx2.AsyncClient
) -> None:
    """Times in the future count as now, and a success without a time is the oldest."""
    campaign = await sent(host, "2.0")
    await host.execute(
        "UPDATE ota_device_status SET status = 'SUCCESS', completed_at = 'infinity' WHERE device_id = 'dev-1'"
    )
    await host.execute(
        "UPDATE ota_device_status SET status = 'SUCCESS', completed_at = '-infinity' WHERE device_id = 'dev-2'"
    )
    await host.execute("UPDATE ota_device_status SET status = 'SUCCESS' WHERE device_id = 'dev-3'")
    await host.execute("UPDATE ota_campaigns SET unstored_after = ''")
    assert await versions(north) == ["2.0", "2.0", "2.0"]
    await north.put("/devices/dev-2", json={"version": "1.0"})
    await north.put("/devices/dev-3", json={"version": "1.0"})
    assert await versions(north) == ["2.0", "1.0", "1.0"]
    await store_fields(pool, await ends(host, campaign))
    assert await versions(north) == ["2.0", "1.0", "1.0"]
    seen = [row["last_seen"] for row in (await north.get("/devices")).json()["devices"]]
    assert [each is not None for each in seen] == [True, False, False]


async def test_a_device_that_fell_silent_was_seen_and_one_that_never_answered_was_not(
    pool: Pool, host: Connection
) -> None:
    campaign = await sent(host, "2.0", 2)
    await host.execute("INSERT INTO devices (tenant_id, device_id) VALUES ('north', 'dev-1'), ('north', 'dev-2')")
    await ingest(pool, [incoming_report("dev-1", campaign, "INSTALLING")])
    await host.execute(
        "UPDATE ota_device_status SET status = 'FAILED', failed_reason = 'no_progress', completed_at = now()"
    )
    await host.execute("UPDATE ota_campaigns SET unstored_after = ''")
    rows = [await host.fetch("SELECT device_id, last_seen < now() FROM rollwave_registered('north') ORDER BY 1")]
    await store_fields(pool, await ends(host, campaign))
    rows += [await host.fetch("SELECT device_id, last_seen < now() FROM rollwave_registered('north') ORDER BY 1")]
    expected = [("dev-1", True), ("dev-2", None)]
    assert [[tuple(row) for row in each] for each in rows] == [expected, expected]
