"""The field of a campaign over HTTP: a byte for each device, in dispatch order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from rollwave.domain.overview.field import apply, changes
from rollwave.engine.field import Fields
from rollwave.errors import NotFound
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, create_campaign

STATES = ("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")
DEVICES = [f"d{number}" for number in range(6)]


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


async def set_state(pool: Pool, device: str, status: str, *, tenant: str = "north") -> None:
    await pool.execute(
        "UPDATE ota_device_status SET status = $3 WHERE tenant_id = $1 AND device_id = $2", tenant, device, status
    )


async def test_the_field_has_a_byte_for_each_device_in_dispatch_order(pool: Pool, north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, *DEVICES)
    for device, status in zip(DEVICES, STATES, strict=True):
        await set_state(pool, device, status)
    answer = await north.get(f"{path}/field", headers={"Accept-Encoding": "identity"})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Encoding" not in answer.headers
    assert answer.content == bytes(range(6))
    assert answer.headers["Rollwave-Generation"]
    assert int(answer.headers["Rollwave-Sequence"]) > 1_700_000_000_000_000


async def test_the_order_is_by_wave_and_place_and_devices_without_a_place_come_last(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    path = await create_campaign(north, *DEVICES)
    for device, wave, key, status in (
        ("d5", 0, 9, "SUCCESS"),
        ("d4", 0, 3, "FAILED"),
        ("d3", 1, 1, "INSTALLING"),
        ("d0", 2, 5, "DOWNLOADING"),
        ("d1", 2, 5, "PENDING"),
    ):
        await pool.execute(
            "UPDATE ota_device_status SET segment = 1, position = ($2 + 1)::bigint << 44 | $3, status = $4"
            " WHERE device_id = $1",
            *(device, wave, key, status),
        )
    await set_state(pool, "d2", "SKIPPED")
    assert (await north.get(f"{path}/field")).content == bytes([4, 3, 2, 1, 0, 5])
    found = [(await north.get(f"{path}/field/{index}")).json() for index in range(6)]
    assert [each["device_id"] for each in found] == ["d4", "d5", "d3", "d0", "d1", "d2"]
    assert [each["status"] for each in found] == [
        *("FAILED", "SUCCESS", "INSTALLING", "DOWNLOADING", "PENDING", "SKIPPED")
    ]
    assert found[0] == {"campaign_id": number_of(path), "index": 0, "device_id": "d4", "status": "FAILED"}
    assert_problem(await north.get(f"{path}/field/6"), 404, "not-found")


async def test_the_field_is_compressed_for_clients_that_accept_it(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, *(f"d{number:04}" for number in range(3000)))
    answer = await north.get(f"{path}/field", headers={"Accept-Encoding": "gzip, br"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 100
    assert answer.content == bytes(3000)
    assert answer.headers["Vary"] == "Accept-Encoding"


async def test_the_generation_changes_with_order_and_membership_only(pool: Pool, north: httpx2.AsyncClient) -> None:
    campaign = number_of(await create_campaign(north, *DEVICES))

    async def generation() -> str:
        return (await Fields(pool).read("north", campaign)).generation

    first = await generation()
    await set_state(pool, "d1", "FAILED")
    assert await generation() == first
    await pool.execute("UPDATE ota_device_status SET position = 7 WHERE device_id = 'd3'")
    moved = await generation()
    assert moved != first
    await pool.execute("DELETE FROM ota_device_status WHERE device_id = 'd5'")
    assert await generation() not in {first, moved}


async def test_changes_between_two_fields_turn_one_into_the_other(pool: Pool, north: httpx2.AsyncClient) -> None:
    campaign = number_of(await create_campaign(north, *DEVICES))
    before = await Fields(pool).read("north", campaign)
    await set_state(pool, "d2", "SUCCESS")
    await set_state(pool, "d3", "SUCCESS")
    after = await Fields(pool).read("north", campaign)
    found = changes(before, after)
    assert found is not None
    assert [tuple(each) for each in found.runs] == [(2, 2, 3)]
    assert apply(before.states, found.runs) == after.states
    assert found.since == before.sequence < found.sequence


async def test_callers_at_the_same_time_share_one_read(pool: Pool, north: httpx2.AsyncClient) -> None:
    campaign = number_of(await create_campaign(north, *DEVICES))
    fields = Fields(pool)
    found = await asyncio.gather(*(fields.read("north", campaign) for _ in range(20)))
    assert len({id(each) for each in found}) == 1


async def test_a_campaign_that_is_not_there_is_not_kept(pool: Pool, north: httpx2.AsyncClient) -> None:
    fields = Fields(pool)
    with pytest.raises(NotFound):
        await fields.read("north", 7)
    campaign = number_of(await create_campaign(north, *DEVICES))
    assert len((await fields.read("north", campaign)).states) == 6


async def test_a_tenant_sees_its_own_field(pool: Pool, north: httpx2.AsyncClient, south: httpx2.AsyncClient) -> None:
    path = await create_campaign(north, *DEVICES)
    assert_problem(await south.get(f"{path}/field"), 404, "not-found")
    assert_problem(await south.get(f"{path}/field/0"), 404, "not-found")
    await pool.execute(f"ALTER SEQUENCE ota_campaigns_id_seq RESTART WITH {number_of(path)}")
    assert await create_campaign(south, *DEVICES[:2]) == path  # a twin with the same number and devices
    await set_state(pool, "d0", "FAILED", tenant="south")
    fields = Fields(pool)
    assert (await fields.read("north", number_of(path))).states == bytes(6)
    assert (await fields.read("south", number_of(path))).states == bytes([4, 0])
    assert (await south.get(f"{path}/field/1")).json()["device_id"] == "d1"
    assert_problem(await south.get(f"{CAMPAIGNS}/999/field"), 404, "not-found")
