"""A large group is imported in parts over HTTP: its members are all replaced in one transaction, or none is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.store import imports
from rollwave.store.database import Pool
from tests.api import assert_problem, calling
from tests.engine import connect
from tests.support import eventually

GROUP = "/device-groups/site"


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def begun(client: httpx2.AsyncClient) -> str:
    answer = await client.post(f"{GROUP}/imports")
    assert answer.status_code == 201, answer.text
    return f"{GROUP}/imports/{answer.json()['import_id']}"


async def members(client: httpx2.AsyncClient) -> list[str]:
    found: list[str] = (await client.get(GROUP)).json()["device_ids"]
    return found


async def left_over(pool: Pool) -> tuple[int, int]:
    row = await pool.fetchrow(
        "SELECT (SELECT count(*) FROM rollwave_group_imports), (SELECT count(*) FROM rollwave_group_import_devices)"
    )
    assert row is not None
    return row[0], row[1]


async def test_the_parts_of_an_import_become_the_members_when_it_is_applied(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    await north.put("/devices/a", json={"device_type": "gateway", "attributes": {"site": "north"}})
    await north.put(GROUP, json={"device_ids": ["a", "old"]})
    made = await north.post(f"{GROUP}/imports")
    assert made.json().items() >= {"group_id": "site", "devices": 0}.items()
    path = made.headers["Location"].removeprefix("/api/v1/customer")
    described: list[dict[str, Any]] = [
        {"device_id": "b", "device_type": "overruled"},
        {"device_id": "b", "device_type": "sensor", "attributes": {"slots": [1]}},
        {"device_id": "c"},
    ]
    counts = [
        (await north.post(f"{path}/devices", json=part)).json()["devices"]
        for part in (
            {"device_ids": ["a", "b"]},
            {"devices": described},
            {"devices": described},
            {"device_ids": ["b", "d", "d"]},
            {},
        )
    ]
    assert counts == [2, 3, 3, 4, 4]
    assert await members(north) == ["a", "old"]
    assert (await north.get("/devices")).json()["total"] == 2

    applied = await north.post(f"{path}/apply")
    assert applied.json() == {"group_id": "site", "total": 4, "added": 3, "removed": 1, "registered": 3}
    assert await members(north) == ["a", "b", "c", "d"]
    known = {row["device_id"]: (row["device_type"], row["attributes"]) for row in await devices(north)}
    assert known.pop("old") == (None, {})
    assert known == {
        "a": ("gateway", {"site": "north"}),
        "b": ("sensor", {"slots": [1]}),
        "c": (None, {}),
        "d": (None, {}),
    }
    assert (await north.post(f"{path}/apply")).json() == applied.json()
    assert_problem(await north.post(f"{path}/devices", json={"device_ids": ["e"]}), 409, "conflict")
    assert_problem(await north.delete(path), 409, "conflict")
    assert (await left_over(pool))[1] == 0


async def devices(client: httpx2.AsyncClient) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await client.get("/devices")).json()["devices"]
    return rows


async def test_a_cancelled_import_leaves_no_rows(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await begun(north)
    await north.post(f"{path}/devices", json={"device_ids": ["a"]})
    assert (await north.delete(path)).status_code == 204
    assert await left_over(pool) == (0, 0)
    for answer in (
        await north.delete(path),
        await north.post(f"{path}/apply"),
        await north.post(f"{path}/devices", json={"device_ids": ["a"]}),
        await north.get(GROUP),
    ):
        assert_problem(answer, 404, "not-found")
    assert (await north.get("/devices")).json()["total"] == 0


async def test_applying_an_import_without_devices_does_not_empty_the_group(north: httpx2.AsyncClient) -> None:
    await north.put(GROUP, json={"device_ids": ["a"]})
    assert_problem(await north.post(f"{await begun(north)}/apply"), 409, "conflict")
    assert await members(north) == ["a"]


async def test_an_import_expires_an_hour_after_its_last_part(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await begun(north)
    await north.post(f"{path}/devices", json={"device_ids": ["a"]})
    for passed, status in (("3500 s", 200), ("3500 s", 200), ("3700 s", 404)):
        await pool.execute("UPDATE rollwave_group_imports SET expires_at = expires_at - $1::text::interval", passed)
        assert (await north.post(f"{path}/devices", json={"device_ids": ["b"]})).status_code == status
    assert_problem(await north.post(f"{path}/apply"), 404, "not-found")
    await begun(north)
    assert await left_over(pool) == (1, 0)


async def test_an_import_has_a_maximum_number_of_devices(pool: Pool, north: httpx2.AsyncClient) -> None:
    paths = [await begun(north) for _ in range(imports.MAX_OPEN)]
    assert_problem(await north.post(f"{GROUP}/imports"), 409, "conflict")
    await north.delete(paths[0])
    await begun(north)
    nearly_full = imports.MAX_DEVICES - 3
    await pool.execute("UPDATE rollwave_group_imports SET devices = $1", nearly_full)
    await north.post(f"{paths[1]}/devices", json={"device_ids": ["a", "b"]})
    assert_problem(await north.post(f"{paths[1]}/devices", json={"device_ids": ["c", "d"]}), 422, "invalid-input")
    assert (await north.post(f"{paths[1]}/devices", json={"device_ids": ["c"]})).json()[
        "devices"
    ] == imports.MAX_DEVICES
    too_many = {"device_ids": [f"d{number}" for number in range(10_001)]}
    assert_problem(await north.post(f"{paths[2]}/devices", json=too_many), 422, "invalid-input")


async def test_an_import_is_not_found_in_another_tenant_or_group(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await begun(north)
    await north.post(f"{path}/devices", json={"device_ids": ["a"]})
    elsewhere = path.replace("site", "other")
    async with calling(pool, "south") as south:
        for client, their in ((south, path), (north, elsewhere)):
            assert_problem(await client.post(f"{their}/devices", json={"device_ids": ["b"]}), 404, "not-found")
            assert_problem(await client.post(f"{their}/apply"), 404, "not-found")
            assert_problem(await client.delete(their), 404, "not-found")
    assert (await north.post(f"{path}/apply")).json()["total"] == 1


async def test_applying_an_import_replaces_all_members_in_one_step(database: str, north: httpx2.AsyncClient) -> None:
    await north.put(GROUP, json={"device_ids": ["old-1", "old-2"]})
    path = await begun(north)
    await north.post(f"{path}/devices", json={"devices": [{"device_id": "new-1", "device_type": "x"}]})
    async with connect(database) as host:
        # The lock blocks the insertion of members. By then the transaction has written devices and removed members.
        await host.execute("ALTER TABLE device_group_members ADD CONSTRAINT refuse CHECK (device_id NOT LIKE 'new%')")
        assert_problem(await north.post(f"{path}/apply"), 422, "invalid-input")
        assert await members(north) == ["old-1", "old-2"]
        assert [row["device_id"] for row in await devices(north)] == ["old-1", "old-2"]
        await host.execute("ALTER TABLE device_group_members DROP CONSTRAINT refuse")
    assert (await north.post(f"{path}/apply")).json()["total"] == 1
    assert await members(north) == ["new-1"]


async def test_cancelling_waits_for_a_running_apply(database: str, north: httpx2.AsyncClient) -> None:
    path = await begun(north)
    await north.post(f"{path}/devices", json={"device_ids": ["a"]})
    async with connect(database) as host:
        transaction = host.transaction()
        await transaction.start()
        await host.execute("LOCK TABLE device_group_members IN EXCLUSIVE MODE")
        applying = asyncio.create_task(north.post(f"{path}/apply"))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with connect(database) as observer:
            await eventually(lambda: observer.fetchval(waiting), what="applying waits for the table")
            cancelling = asyncio.create_task(north.delete(path))
            await eventually(lambda: twice(observer.fetchval(waiting)), what="cancelling waits for applying")
        await transaction.rollback()
    assert (await applying).json()["total"] == 1
    assert_problem(await cancelling, 409, "conflict")


async def twice(number: Any) -> bool:
    return bool(await number == 2)
