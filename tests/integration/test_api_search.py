"""Search, and the campaigns of a device, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.queries import load
from rollwave.store.search import MAX_FOUND, MAX_LOOKED_AT
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, create_campaign, prepare_campaign_body


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.fixture
async def south(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "south") as client:
        yield client


def number_of(path: str) -> int:
    return int(path.rpartition("/")[2])


async def search(client: httpx2.AsyncClient, text: str) -> dict[str, list[object]]:
    answer = await client.get("/search", params={"q": text})
    assert answer.status_code == 200, answer.text
    found: dict[str, list[object]] = answer.json()
    return found


async def test_a_search_finds_each_kind(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, "gw-1", "gw-10", "pump-1")
    number = number_of(path)
    spring = {"id": number, "name": "spring", "status": "CREATED"}
    assert (await search(north, "PRIN"))["campaigns"] == [spring]
    assert (await search(north, str(number)))["campaigns"] == [spring]
    assert (await search(north, "gw-"))["devices"] == ["gw-1", "gw-10"]
    assert (await search(north, "gw-10"))["devices"] == ["gw-10"]
    assert (await search(north, "si"))["device_groups"] == ["site"]
    firmware = (await search(north, "2.1"))["firmware"]
    assert [(each["version"], each["device_type"]) for each in firmware] == [(FIRMWARE["version"], None)]  # type: ignore[index]
    nothing: dict[str, list[object]] = {"campaigns": [], "devices": [], "device_groups": [], "firmware": []}
    assert await search(north, "nothing like it") == nothing
    assert await search(north, "%") == nothing
    assert await search(north, "9" * 30) == nothing


async def test_an_empty_search_is_refused(north: httpx2.AsyncClient) -> None:
    assert_problem(await north.get("/search", params={"q": ""}), 422, "invalid-input")
    assert_problem(await north.get("/search"), 422, "invalid-input")


async def test_at_most_ten_of_each_kind_are_found(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north, *(f"d{number:02}" for number in range(30)))
    for _ in range(12):
        assert (await north.post(CAMPAIGNS, json=body)).status_code == 201
    found = await search(north, "d0")
    assert found["devices"] == [f"d{number:02}" for number in range(10)]
    assert len((await search(north, "spring"))["campaigns"]) == MAX_FOUND


async def test_a_search_finds_nothing_of_another_tenant(north: httpx2.AsyncClient, south: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, "gw-1")
    await south.put("/device-groups/other", json={"device_ids": ["gw-2"]})
    assert (await search(south, "gw-"))["devices"] == ["gw-2"]
    for text in ("spring", str(number_of(path)), "site", "2.1"):
        assert not any((await search(south, text)).values())


async def test_a_search_uses_indexes_under_row_level_security(pool: Pool) -> None:
    """As pulse_app, whose conditions PostgreSQL checks before any function that is not leakproof."""
    await pool.execute("INSERT INTO tenants VALUES ('north'), ('south')")
    await pool.execute(
        "INSERT INTO devices (tenant_id, device_id) SELECT t, 'device-' || n"
        " FROM unnest(ARRAY['north', 'south']) AS t, generate_series(1, 20000) AS n"
    )
    await pool.execute(
        "INSERT INTO device_groups (tenant_id, group_id) SELECT t, 'group-' || n"
        " FROM unnest(ARRAY['north', 'south']) AS t, generate_series(1, 20000) AS n"
    )
    await pool.execute("VACUUM ANALYZE devices, device_groups")
    for name, text in (("devices", "device-17"), ("groups", "group-17")):
        sql = load("search")[name].replace("$1", "'north'").replace("$2", f"'{text}'")
        sql = sql.replace("$3", str(MAX_LOOKED_AT)).replace("$4", str(MAX_FOUND))
        async with tenant_transaction(pool, "north") as connection:
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}"))
        assert "Seq Scan" not in plan, plan
        assert f">= '{text}'" in plan.partition("Index Cond")[2].partition("\n")[0], plan


async def test_a_device_lists_its_campaigns(pool: Pool, north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north, "d1", "d2")
    numbers = [(await north.post(CAMPAIGNS, json=body | {"name": f"c{each}"})).json()["id"] for each in range(3)]
    await pool.execute(
        "UPDATE ota_device_status SET status = 'FAILED', attempt = 2, error_code = 'E_BOOT', error_message = 'no boot',"
        " failed_reason = 'reported', completed_at = now() WHERE device_id = 'd1' AND campaign_id = $1",
        numbers[0],
    )
    await pool.execute("DELETE FROM ota_device_status WHERE device_id = 'd1' AND campaign_id = $1", numbers[1])
    found = (await north.get("/devices/d1/campaigns")).json()
    assert [each["campaign_id"] for each in found["campaigns"]] == [numbers[2], numbers[0]]
    assert (found["device_id"], found["next_cursor"]) == ("d1", None)
    failed = found["campaigns"][1]
    assert (
        failed.items()
        >= {
            "name": "c0",
            "campaign_status": "CREATED",
            "firmware_version": FIRMWARE["version"],
            "status": "FAILED",
            "attempt": 2,
            "error_code": "E_BOOT",
            "error_message": "no boot",
            "failed_reason": "reported",
        }.items()
    )
    assert failed["completed_at"]


async def test_a_device_s_campaigns_are_paged(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north, "d1")
    numbers = [(await north.post(CAMPAIGNS, json=body)).json()["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await north.get("/devices/d1/campaigns", params=params)).json()
        seen += [each["campaign_id"] for each in page["campaigns"]]
        assert page["total"] == 5
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == numbers[::-1]


async def test_a_device_without_campaigns_has_an_empty_list_and_an_unknown_one_is_not_found(
    north: httpx2.AsyncClient, south: httpx2.AsyncClient
) -> None:
    await create_campaign(north, "d1")
    await north.put("/devices/d9", json={})
    assert (await north.get("/devices/d9/campaigns")).json()["campaigns"] == []
    assert_problem(await north.get("/devices/d8/campaigns"), 404, "not-found")
    assert_problem(await south.get("/devices/d1/campaigns"), 404, "not-found")
    await create_campaign(south, "d1")
    assert len((await south.get("/devices/d1/campaigns")).json()["campaigns"]) == 1


async def test_devices_are_listed_by_the_version_that_they_run(north: httpx2.AsyncClient) -> None:
    for device, version, site in (("d1", "2.1.0", "north"), ("d2", "2.1.0", "south"), ("d3", "2.2.0", "north")):
        await north.put(f"/devices/{device}", json={"version": version, "attributes": {"site": site}})

    async def listed(**params: str) -> list[str]:
        found = (await north.get("/devices", params=params)).json()
        assert found["total"] == len(found["devices"])
        return [each["device_id"] for each in found["devices"]]

    assert await listed(version="2.1.0") == ["d1", "d2"]
    assert await listed(version="2.1.0", select="site == north or site == east") == ["d1"]
    assert await listed(version='2.1.0" or site == north') == []
