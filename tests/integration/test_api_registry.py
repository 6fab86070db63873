"""Devices and groups over HTTP, also in tables that a host had before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest

from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.api import assert_problem, calling


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def test_a_device_is_registered_and_replaced(north: httpx2.AsyncClient) -> None:
    registered = {"device_type": "gateway", "attributes": {"site": "north", "slots": [1, 2.5, None, {"é": True}]}}
    first = (await north.put("/devices/gw:1", json=registered)).json()
    assert first.items() >= {"device_id": "gw:1", **registered}.items()
    assert (await north.get("/devices/gw:1")).json() == first
    again = await north.put("/devices/gw:1", json={})
    assert again.json() == first | {"device_type": None, "attributes": {}}
    assert (await north.put("/devices/gw:2")).status_code == 200
    assert_problem(await north.get("/devices/gw:3"), 404, "not-found")


async def test_devices_are_listed_by_type_in_pages(north: httpx2.AsyncClient) -> None:
    for number in range(3):
        await north.put(f"/devices/a{number}", json={"device_type": "gateway"})
    await north.put("/devices/b")
    first = (await north.get("/devices", params={"limit": 2, "device_type": "gateway"})).json()
    assert ([row["device_id"] for row in first["devices"]], first["total"]) == (["a0", "a1"], 3)
    query = {"limit": 2, "device_type": "gateway", "cursor": first["next_cursor"]}
    rest = (await north.get("/devices", params=query)).json()
    assert ([row["device_id"] for row in rest["devices"]], rest["next_cursor"]) == (["a2"], None)


async def test_setting_a_group_registers_its_devices_with_types_and_attributes(north: httpx2.AsyncClient) -> None:
    await north.put("/devices/a", json={"device_type": "sensor", "attributes": {"site": "south"}})
    registered = [
        {"device_id": "b", "device_type": "gateway", "attributes": {"site": "south"}},
        {"device_id": "b", "device_type": "gateway", "attributes": {"site": "north", "slots": [1]}},
        {"device_id": "c"},
    ]
    changed = (await north.put("/device-groups/site", json={"device_ids": ["a"], "devices": registered})).json()
    assert changed == {"group_id": "site", "total": 3, "added": 3, "removed": 0, "registered": 2}
    known = {row["device_id"]: (row["device_type"], row["attributes"]) for row in (await _devices(north))}
    assert known == {
        "a": ("sensor", {"site": "south"}),
        "b": ("gateway", {"site": "north", "slots": [1]}),
        "c": (None, {}),
    }


async def _devices(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await client.get("/devices")).json()["devices"]
    return rows


async def test_putting_a_group_replaces_its_members(north: httpx2.AsyncClient) -> None:
    await north.put("/devices/a", json={"device_type": "gateway"})
    changes = [
        (await north.put("/device-groups/site", json={"device_ids": ids})).json()
        for ids in (["a", "b", "b"], ["b", "c"], ["b", "c"], [])
    ]
    assert changes == [
        {"group_id": "site", "total": 2, "added": 2, "removed": 0, "registered": 1},
        {"group_id": "site", "total": 2, "added": 1, "removed": 1, "registered": 1},
        {"group_id": "site", "total": 2, "added": 0, "removed": 0, "registered": 0},
        {"group_id": "site", "total": 0, "added": 0, "removed": 2, "registered": 0},
    ]
    assert (await north.get("/devices/a")).json()["device_type"] == "gateway"
    assert (await north.get("/devices")).json()["total"] == 3


async def test_a_group_can_be_put_with_types_and_attributes_of_its_devices(north: httpx2.AsyncClient) -> None:
    await north.put("/devices/a", json={"device_type": "gateway"})
    registered = {"device_id": "b", "device_type": "sensor", "attributes": {"site": "north"}}
    body = {"device_ids": ["a"], "devices": [registered | {"device_type": "overruled"}, registered]}
    assert (await north.put("/device-groups/site", json=body)).json()["total"] == 2
    assert (await north.get("/devices/b")).json().items() >= registered.items()
    assert (await north.get("/devices/a")).json()["device_type"] == "gateway"


async def test_groups_and_members_are_listed_in_pages(north: httpx2.AsyncClient) -> None:
    for group in ("east", "west"):
        await north.put(f"/device-groups/{group}", json={"device_ids": ["c", "a", "b"]})
    first = (await north.get("/device-groups/east", params={"limit": 2})).json()
    rest = (await north.get("/device-groups/east", params={"cursor": first["next_cursor"]})).json()
    assert (first["device_ids"], rest["device_ids"], rest["next_cursor"]) == (["a", "b"], ["c"], None)
    assert first["total"] == rest["total"] == 3
    one = (await north.get("/device-groups", params={"limit": 1})).json()
    two = (await north.get("/device-groups", params={"limit": 1, "cursor": one["next_cursor"]})).json()
    groups = one["device_groups"] + two["device_groups"]
    assert [(each["group_id"], each["total"]) for each in groups] == [("east", 3), ("west", 3)]
    assert_problem(await north.get("/device-groups/south"), 404, "not-found")


async def test_concurrent_puts_of_a_group_leave_the_members_of_one_of_them(north: httpx2.AsyncClient) -> None:
    lists = [[f"d{number + shift}" for number in range(200)] for shift in range(8)]
    answers = await asyncio.gather(
        *(
            north.put("/device-groups/site", json={"device_ids": ids[:: 1 if n % 2 else -1]})
            for n, ids in enumerate(lists)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    members = (await north.get("/device-groups/site", params={"limit": 1000})).json()["device_ids"]
    assert members in [sorted(ids) for ids in lists]


async def test_tenants_with_equal_device_ids_see_only_their_own_devices(pool: Pool, north: httpx2.AsyncClient) -> None:
    await north.put("/device-groups/site", json={"device_ids": ["d1"]})
    async with calling(pool, "south") as south:
        assert_problem(await south.get("/devices/d1"), 404, "not-found")
        assert_problem(await south.get("/device-groups/site"), 404, "not-found")
        await south.put("/devices/d1", json={"device_type": "south's"})
        await south.put("/device-groups/site", json={"device_ids": ["d2"]})
    assert (await north.get("/devices/d1")).json()["device_type"] is None
    assert (await north.get("/device-groups/site")).json()["device_ids"] == ["d1"]


async def test_a_required_column_of_the_host_is_named_in_the_conflict(empty_database: str) -> None:
    host = await asyncpg.connect(empty_database)
    await host.execute(
        "CREATE TABLE devices (tenant_id text, device_id text, serial text NOT NULL,"
        " PRIMARY KEY (tenant_id, device_id));"
        "INSERT INTO devices VALUES ('north', 'theirs', 'S-1')"
    )
    await host.close()
    await migrate(empty_database)
    async with create_pool(empty_database) as pool, calling(pool, "north") as north:
        assert (await north.put("/devices/theirs", json={"device_type": "x"})).status_code == 200
        assert (await north.put("/device-groups/site", json={"device_ids": ["theirs"]})).status_code == 200
        for path, body in (("/devices/new", {}), ("/device-groups/site", {"device_ids": ["new"]})):
            problem = assert_problem(await north.put(path, json=body), 409, "conflict")
            assert "serial" in problem["detail"]
        assert (await north.get("/device-groups/site")).json()["device_ids"] == ["theirs"]
