"""Campaigns over HTTP: creating, starting, stopping and reading them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from rollwave.domain.execution import ExecutionStatus
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.store import campaigns
from rollwave.store.database import Pool
from rollwave.store.targets import MAX_DEVICES_PER_BATCH
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, create_campaign, prepare_campaign_body
from tests.support import eventually


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def test_a_new_campaign_is_returned_with_all_its_fields(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north)
    answer = await north.post(CAMPAIGNS, json=body)
    campaign = answer.json()
    assert answer.status_code == 201
    assert body.items() <= campaign.items()
    assert (
        campaign.items()
        >= {
            "tenant_id": "north",
            "status": "CREATED",
            "rollout_strategy": "linear",
            "rollout_rate": 10,
            "abort_threshold": 0.1,
            "abort_min_completed": 1,
            "total_devices": 3,
            "targeted_devices": None,
            "sent": 0,
            "succeeded": 0,
            "failed": 0,
            "started_at": None,
            "completed_at": None,
            "firmware_version": FIRMWARE["version"],
            "firmware_url": FIRMWARE["file_url"],
            "firmware_checksum": FIRMWARE["checksum_sha256"],
            "firmware_device_type": None,
        }.items()
    )
    assert campaign["status_breakdown"] == {each: 3 if each == "PENDING" else 0 for each in ExecutionStatus}
    shown = (await north.get(f"http://test{answer.headers['Location']}")).json()
    assert shown | {"warnings": [], "next_openings": []} == campaign


async def test_every_rule_of_a_campaign_can_be_set(north: httpx2.AsyncClient) -> None:
    rules = {
        "rollout_strategy": "canary",
        "rollout_rate": 7.0,  # JSON has one type of number.
        "abort_threshold": 0,
        "abort_min_completed": 3,
        "canary_percent": 12.5,
        "max_in_flight": 20,
        "progress_timeout": 90,
        "max_attempts": 2,
    }
    answer = await north.post(CAMPAIGNS, json=await prepare_campaign_body(north) | rules)
    assert rules.items() <= answer.json().items()


async def test_a_campaign_can_be_started_paused_and_aborted(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    campaign_id = int(path.rpartition("/")[2])
    moves = ["start", "start", "pause", "pause", "start", "abort", "abort"]
    answers = [(await north.post(f"{path}/{move}")).json() for move in moves]
    states = ["RUNNING", "RUNNING", "PAUSED", "PAUSED", "RUNNING", "ABORTED", "ABORTED"]
    assert answers == [{"id": campaign_id, "status": state} for state in states]

    assert_problem(await north.post(f"{path}/start"), 409, "conflict")
    assert_problem(await north.post(f"{path}/pause"), 409, "conflict")
    campaign = (await north.get(path)).json()
    assert campaign["status_breakdown"]["SKIPPED"] == 3
    assert campaign["started_at"] <= campaign["completed_at"]


async def test_a_campaign_that_was_not_started_cannot_be_paused(north: httpx2.AsyncClient) -> None:
    assert_problem(await north.post(f"{await create_campaign(north)}/pause"), 409, "conflict")


async def test_the_reason_of_an_abort_is_kept(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    await north.post(f"{path}/abort", json={"reason": "battery drain"})
    assert (await north.get(path)).json()["status_reason"] == "battery drain"


async def test_of_a_concurrent_pause_and_abort_the_abort_is_final(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    await north.post(f"{path}/start")
    paused, aborted = await asyncio.gather(north.post(f"{path}/pause"), north.post(f"{path}/abort"))
    assert aborted.status_code == 200
    assert paused.status_code in {200, 409}
    assert (await north.get(path)).json()["status"] == "ABORTED"


async def test_a_campaign_on_an_empty_group_is_a_conflict(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north)
    await north.put("/device-groups/site", json={"device_ids": []})
    assert_problem(await north.post(CAMPAIGNS, json=body), 409, "conflict")
    assert (await north.get(CAMPAIGNS)).json()["total"] == 0


@pytest.mark.parametrize("missing", [{"firmware_version_id": 999}, {"target_group_id": "no such group"}])
async def test_a_campaign_needs_an_existing_firmware_and_group(
    north: httpx2.AsyncClient, missing: dict[str, Any]
) -> None:
    assert_problem(await north.post(CAMPAIGNS, json=await prepare_campaign_body(north) | missing), 404, "not-found")


async def test_a_campaign_whose_firmware_is_deleted_during_creation_gets_404(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    body = await prepare_campaign_body(north)
    async with pool.acquire() as operator:
        async with operator.transaction():
            await operator.execute("DELETE FROM firmware_versions")
            creating = asyncio.create_task(north.post(CAMPAIGNS, json=body))
            await eventually(lambda: waits_for_a_lock(pool), what="the insert waits for the delete")
        assert_problem(await creating, 404, "not-found")


async def waits_for_a_lock(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def test_an_idempotency_key_reused_for_another_request_is_a_conflict(north: httpx2.AsyncClient) -> None:
    body, key = await prepare_campaign_body(north), {"Idempotency-Key": "rollout-2026-11"}
    first = await north.post(CAMPAIGNS, json=body, headers=key)
    again = await north.post(CAMPAIGNS, json=body, headers=key)
    assert again.json()["id"] == first.json()["id"]
    assert_problem(await north.post(CAMPAIGNS, json=body | {"rollout_rate": 11}, headers=key), 409, "conflict")
    assert (await north.get(CAMPAIGNS)).json()["total"] == 1


async def test_concurrent_requests_with_one_idempotency_key_create_one_campaign(north: httpx2.AsyncClient) -> None:
    body, key = await prepare_campaign_body(north), {"Idempotency-Key": "twice"}
    answers = await asyncio.gather(*(north.post(CAMPAIGNS, json=body, headers=key) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_an_idempotency_key_belongs_to_its_tenant(pool: Pool, north: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "same"}
    async with calling(pool, "south") as south:
        for client in (north, south):
            answer = await client.post(CAMPAIGNS, json=await prepare_campaign_body(client), headers=key)
            assert answer.status_code == 201
            assert (await client.get(CAMPAIGNS)).json()["total"] == 1


async def test_campaigns_are_listed_by_status_in_pages(north: httpx2.AsyncClient) -> None:
    paths = [await create_campaign(north) for _ in range(3)]
    await north.post(f"{paths[0]}/start")
    running = (await north.get(CAMPAIGNS, params={"status": "RUNNING"})).json()
    assert [f"{CAMPAIGNS}/{row['id']}" for row in running["campaigns"]] == paths[:1]
    first = (await north.get(CAMPAIGNS, params={"limit": 2})).json()
    rest = (await north.get(CAMPAIGNS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    rows = first["campaigns"] + rest["campaigns"]
    assert [f"{CAMPAIGNS}/{row['id']}" for row in rows] == paths[::-1]
    assert (first["total"], rest["total"], rest["next_cursor"]) == (3, 3, None)


async def test_a_campaigns_devices_are_listed_by_status_in_pages(north: httpx2.AsyncClient) -> None:
    ids = [f"d{number}" for number in range(7)]
    path = f"{await create_campaign(north, *ids)}/devices"
    first = (await north.get(path, params={"limit": 4, "status": "PENDING"})).json()
    rest = (await north.get(path, params={"limit": 4, "cursor": first["next_cursor"]})).json()
    assert [row["device_id"] for row in first["devices"] + rest["devices"]] == ids
    assert (first["total"], rest["total"], rest["next_cursor"]) == (7, 7, None)
    assert (
        first["devices"][0].items()
        >= {
            "device_id": "d0",
            "status": "PENDING",
            "progress_pct": 0,
            "error_message": None,
            "started_at": None,
            "completed_at": None,
            "attempt": 0,
        }.items()
    )
    none = (await north.get(path, params={"status": "FAILED"})).json()
    assert (none["devices"], none["total"]) == ([], 0)


async def test_a_page_cursor_may_be_any_device_id(pool: Pool, north: httpx2.AsyncClient) -> None:
    """Hosts write rows themselves, so ids may be invalid in the API."""
    path = await create_campaign(north)
    campaign_id = int(path.rpartition("/")[2])
    await pool.executemany(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id) VALUES ('north', $1, $2)",
        [(campaign_id, "zé/+#&%"), (campaign_id, "zz\n")],
    )
    first = (await north.get(f"{path}/devices", params={"limit": 4})).json()
    assert first["next_cursor"] in {"zé/+#&%", "zz\n"}
    rest = (await north.get(f"{path}/devices", params={"cursor": first["next_cursor"]})).json()
    assert [row["device_id"] for row in first["devices"] + rest["devices"]] == ["d1", "d2", "d3", "zz\n", "zé/+#&%"]


async def test_events_are_returned_after_a_cursor(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    seen = (await north.get(f"{path}/events")).json()
    assert [each["event"] for each in seen["events"]] == ["created"]
    await north.post(f"{path}/start")
    await north.post(f"{path}/pause")
    news = (await north.get(f"{path}/events", params={"after": seen["next_after"]})).json()
    assert [each["event"] for each in news["events"]] == ["running", "paused"]
    assert news["events"][0].items() >= {"device_id": None, "detail": {"from": "CREATED", "to": "RUNNING"}}.items()
    nothing = (await north.get(f"{path}/events", params={"after": news["next_after"]})).json()
    assert (nothing["events"], nothing["next_after"]) == ([], news["next_after"])


async def test_another_tenants_campaign_gets_404(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    async with calling(pool, "south") as south:
        for read in ("", "/devices", "/events"):
            assert_problem(await south.get(path + read), 404, "not-found")
        for move in ("start", "pause", "abort"):
            assert_problem(await south.post(f"{path}/{move}"), 404, "not-found")
        assert (await south.get(CAMPAIGNS)).json()["total"] == 0
    assert (await north.get(path)).json()["status"] == "CREATED"


async def test_tenants_with_equal_ids_see_only_their_own_campaigns(pool: Pool, north: httpx2.AsyncClient) -> None:
    """Ids need not be unique across tenants: only the key's tenant tells these two campaigns apart."""
    async with calling(pool, "south") as south:
        path = await create_campaign(north)
        campaign_id = int(path.rpartition("/")[2])
        firmware = await south.post("/firmware", json=FIRMWARE)
        await pool.execute(
            "INSERT INTO ota_campaigns (id, tenant_id, name, firmware_version_id, total_devices)"
            " VALUES ($1, 'south', 'twin', $2, 1)",
            campaign_id,
            firmware.json()["id"],
        )
        await pool.execute(
            "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status)"
            " VALUES ('south', $1, 'd1', 'INSTALLING')",
            campaign_id,
        )
        await south.post(f"{path}/start")
        mine, theirs = (await north.get(path)).json(), (await south.get(path)).json()
        assert (mine["name"], mine["status"], mine["status_breakdown"]["PENDING"]) == ("spring", "CREATED", 3)
        assert (theirs["name"], theirs["status"], theirs["status_breakdown"]["PENDING"]) == ("twin", "RUNNING", 0)
        assert (await south.get(f"{path}/devices")).json()["total"] == 1
        assert {each["event"] for each in (await south.get(f"{path}/events")).json()["events"]} == {"running"}


async def test_a_campaign_row_inserted_by_sql_can_be_read(pool: Pool, north: httpx2.AsyncClient) -> None:
    firmware_id = (await north.post("/firmware", json=FIRMWARE)).json()["id"]
    campaign_id = await pool.fetchval(
        "INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, abort_threshold, started_at)"
        " VALUES ('north', 'by hand', $1, 'NaN', 'infinity') RETURNING id",
        firmware_id,
    )
    campaign = (await north.get(f"{CAMPAIGNS}/{campaign_id}")).json()
    assert (campaign["abort_threshold"], campaign["target_group_id"]) == (None, None)
    assert campaign["waves"] == []


async def test_paths_without_the_prefix_work_for_older_hosts(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    plain = await north.get(f"http://test/customer{path}")
    assert plain.json() == (await north.get(path)).json()
    assert (await north.post(f"http://test/customer{path}/start")).json()["status"] == "RUNNING"
    assert_problem(await north.get("http://test/customer/firmware/999"), 404, "not-found")


async def test_creating_a_campaign_on_100_000_devices_takes_few_statements(database: str, postgres_log: Path) -> None:
    ids = [f"device-{number:06}" for number in range(100_000)]
    before = postgres_log.stat().st_size
    logging = {"log_statement": "all", "log_parameter_max_length": "0"}
    async with asyncpg.create_pool(database, min_size=0, server_settings=logging) as pool, calling(pool) as north:
        created_campaign = (await north.post(CAMPAIGNS, json=await prepare_campaign_body(north, *ids))).json()
        assert (created_campaign["total_devices"], created_campaign["targeted_devices"]) == (
            100_000,
            MAX_DEVICES_PER_BATCH,
        )
        assert created_campaign["status_breakdown"]["PENDING"] == MAX_DEVICES_PER_BATCH
        for due in await campaigns.due(pool):
            while (created_campaign := (await north.get(f"{CAMPAIGNS}/{due.campaign_id}")).json())[
                "targeted_devices"
            ] is not None:
                await Targeter(pool).target(due)
        assert created_campaign["status_breakdown"]["PENDING"] == created_campaign["total_devices"] == 100_000
        assert (await north.get("/device-groups/site")).json()["total"] == 100_000
    statements = re.findall(rb" LOG:  (?:statement|execute [^:]*): ", postgres_log.read_bytes()[before:])
    assert 0 < len(statements) < 1000


async def test_devices_of_a_campaign_that_was_not_started_wait_for_that(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    answer = (await north.get(f"{path}/waiting")).json()
    assert answer.pop("as_of").endswith("Z")
    campaign_id = int(path.rpartition("/")[2])
    text = "the campaign has not been started"
    reason = {"reason": "status", "devices": 3, "until": None, "detail": {"status": "CREATED"}, "text": text}
    assert answer == {"campaign_id": campaign_id, "pending": 3, "waiting": [reason]}


async def test_a_device_is_explained_gate_by_gate(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    answer = (await north.get(f"{path}/devices/d1/explain")).json()
    checks = answer.pop("checks")
    assert answer == {
        "campaign_id": int(path.rpartition("/")[2]),
        "device_id": "d1",
        "status": "PENDING",
        "attempt": 0,
        "wave": "all",
        "may_go_now": False,
        "may_go_at": None,
        "history": [],
    }
    assert [check["gate"] for check in checks] == [
        *("status", "targeting", "listener", "halted", "freeze", "wave", "in_flight", "pace")
    ]
    assert {check["gate"] for check in checks if not check["open"]} == {"status", "listener"}
    assert checks[0].keys() == {"gate", "open", "until", "text", "detail"}


async def test_another_tenants_waiting_devices_are_not_found(north: httpx2.AsyncClient, pool: Pool) -> None:
    path = await create_campaign(north)
    async with calling(pool, "south") as south:
        assert_problem(await south.get(f"{path}/waiting"), 404, "not-found")
        assert_problem(await south.get(f"{path}/devices/d1/explain"), 404, "not-found")
    assert_problem(await north.get(f"{path}/devices/nobody/explain"), 404, "not-found")
