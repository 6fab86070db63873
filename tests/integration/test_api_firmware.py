"""Firmware over HTTP: registering, listing, and protection while a campaign uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx2
import pytest

from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, create_campaign, prepare_campaign_body


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.mark.parametrize("written", ["AB" * 32, "sha256:" + "ab" * 32, "SHA256:" + "AB" * 32])
async def test_registered_firmware_is_returned_as_a_row(north: httpx2.AsyncClient, written: str) -> None:
    body = {**FIRMWARE, "file_size_bytes": 7, "device_type": "gateway", "description": "Faster boot"}
    answer = await north.post("/firmware", json={**body, "checksum_sha256": written})
    row = answer.json()
    assert answer.status_code == 201
    assert body.items() <= row.items()  # The checksum in its normal form.
    assert row["tenant_id"] == "north"
    assert row["created_at"].endswith("Z")
    assert (await north.get(f"http://test{answer.headers['Location']}")).json() == row
    assert (await north.get("/firmware")).json() == {
        "firmware_versions": [row],
        "total": 1,
        "next_cursor": None,
    }


@pytest.mark.parametrize("none", [{}, {"checksum_sha256": None}, {"checksum_sha256": ""}])
async def test_firmware_can_be_registered_without_a_checksum(
    north: httpx2.AsyncClient, none: dict[str, str | None]
) -> None:
    answer = await north.post("/firmware", json={"version": "1", "file_url": "http://h/f", **none})
    assert (answer.status_code, answer.json()["checksum_sha256"]) == (201, None)


async def test_firmware_is_listed_with_filters_in_pages(north: httpx2.AsyncClient) -> None:
    for version in range(5):
        await north.post("/firmware", json={**FIRMWARE, "version": str(version), "device_type": "gateway"})
    await north.post("/firmware", json={**FIRMWARE, "version": "other"})

    pages = []
    query = {"device_type": "gateway", "limit": "2"}
    while query:
        pages.append((await north.get("/firmware", params=query)).json())
        cursor = pages[-1]["next_cursor"]
        query = query | {"cursor": str(cursor)} if cursor else {}
    assert {page["total"] for page in pages} == {5}
    seen = [row["version"] for page in pages for row in page["firmware_versions"]]
    assert seen == ["4", "3", "2", "1", "0"]


async def test_firmware_is_deleted_unless_a_campaign_uses_it(north: httpx2.AsyncClient) -> None:
    body = await prepare_campaign_body(north)
    other = await north.post("/firmware", json={**FIRMWARE, "version": "2.2.0"})
    used, unused = body["firmware_version_id"], other.json()["id"]
    await north.post(CAMPAIGNS, json=body)

    assert_problem(await north.delete(f"/firmware/{used}"), 409, "conflict")
    assert (await north.delete(f"/firmware/{unused}")).status_code == 204
    assert_problem(await north.delete(f"/firmware/{unused}"), 404, "not-found")
    assert (await north.get(f"/firmware/{used}")).status_code == 200


async def test_another_tenants_firmware_gets_404(pool: Pool, north: httpx2.AsyncClient) -> None:
    campaign = await prepare_campaign_body(north)
    path = f"/firmware/{campaign['firmware_version_id']}"
    async with calling(pool, "south") as south:
        await create_campaign(south)
        assert (await south.get("/firmware")).json()["total"] == 1
        assert_problem(await south.get(path), 404, "not-found")
        assert_problem(await south.delete(path), 404, "not-found")
        assert_problem(await south.post(CAMPAIGNS, json=campaign), 404, "not-found")
    assert (await north.get(path)).status_code == 200


FULL = FIRMWARE | {"file_size_bytes": 7, "device_type": "gateway", "description": "Faster boot"}


@pytest.mark.parametrize("body", [FIRMWARE, FULL, FIRMWARE | {"checksum_sha256": ""}], ids=["short", "full", "bare"])
async def test_registering_the_same_firmware_again_returns_the_same_row(
    north: httpx2.AsyncClient, body: dict[str, object]
) -> None:
    first = await north.post("/firmware", json=body)
    again = await north.post("/firmware", json=body | {"checksum_sha256": str(body["checksum_sha256"]).upper()})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert (await north.get("/firmware")).json()["total"] == 1


@pytest.mark.parametrize(
    "other",
    [
        {"file_url": "https://files.example/other.bin"},
        {"checksum_sha256": "cd" * 32},
        {"checksum_sha256": None},
        {"file_size_bytes": 8},
        {"file_size_bytes": None},
        {"description": "Slower boot"},
    ],
    ids=str,
)
async def test_the_same_version_with_other_values_is_a_conflict(
    north: httpx2.AsyncClient, other: dict[str, object]
) -> None:
    row = (await north.post("/firmware", json=FULL)).json()
    problem = assert_problem(await north.post("/firmware", json=FULL | other), 409, "conflict")
    assert f"firmware {row['id']}" in problem["detail"]
    assert f"another {next(iter(other))}" in problem["detail"]
    assert (await north.get("/firmware")).json()["firmware_versions"] == [row]


async def test_a_version_has_one_row_for_each_device_type_and_one_without(
    pool: Pool, north: httpx2.AsyncClient
) -> None:
    bodies = [FIRMWARE, FIRMWARE | {"device_type": "gateway"}, FIRMWARE | {"device_type": "sensor"}]
    answers = [await north.post("/firmware", json=body) for body in bodies]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    async with calling(pool, "south") as south:
        assert (await south.post("/firmware", json=FIRMWARE)).status_code == 201
    # An empty type, as a host may write it, counts as no type.
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute(
            "INSERT INTO firmware_versions (tenant_id, version, file_url, device_type)"
            " VALUES ('north', '2.1.0', 'https://h/f', '')"
        )


@pytest.mark.parametrize("indexed", [True, False], ids=["unique index", "none"])
async def test_twenty_concurrent_registrations_make_one_row(
    pool: Pool, north: httpx2.AsyncClient, indexed: bool
) -> None:
    if not indexed:
        await pool.execute("DROP INDEX rollwave_firmware_version")
    answers = await asyncio.gather(*(north.post("/firmware", json=FULL) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    others = await asyncio.gather(
        *(north.post("/firmware", json=FIRMWARE | {"file_size_bytes": size}) for size in range(1, 9))
    )
    assert sorted(answer.status_code for answer in others) == [201, *[409] * 7]


async def test_a_violation_of_the_hosts_unique_key_is_a_conflict(pool: Pool, north: httpx2.AsyncClient) -> None:
    await pool.execute("CREATE UNIQUE INDEX theirs ON firmware_versions (tenant_id, version)")
    assert (await north.post("/firmware", json=FIRMWARE)).status_code == 201
    other = FIRMWARE | {"device_type": "gateway"}
    assert "2.1.0" in assert_problem(await north.post("/firmware", json=other), 409, "conflict")["detail"]
