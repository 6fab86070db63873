"""Firmware over HTTP: registered, listed, kept while a campaign uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, created, prepared


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.mark.parametrize("written", ["AB" * 32, "sha256:" + "ab" * 32, "SHA256:" + "AB" * 32])
async def test_what_is_registered_comes_back_as_a_row(north: httpx2.AsyncClient, written: str) -> None:
    body = {**FIRMWARE, "file_size_bytes": 7, "device_type": "gateway", "description": "Faster boot"}
    answer = await north.post("/firmware", json={**body, "checksum_sha256": written})
    row = answer.json()
    assert answer.status_code == 201
    assert body.items() <= row.items()  # the checksum in one form
    assert row["tenant_id"] == "north"
    assert row["created_at"].endswith("Z")
    assert (await north.get(f"http://test{answer.headers['Location']}")).json() == row
    assert (await north.get("/firmware")).json() == {
        "firmware_versions": [row],
        "total": 1,
        "next_cursor": None,
    }


@pytest.mark.parametrize("none", [{}, {"checksum_sha256": None}, {"checksum_sha256": ""}])
async def test_a_checksum_is_optional(north: httpx2.AsyncClient, none: dict[str, str | None]) -> None:
    answer = await north.post("/firmware", json={"version": "1", "file_url": "http://h/f", **none})
    assert (answer.status_code, answer.json()["checksum_sha256"]) == (201, None)


async def test_the_list_is_filtered_and_comes_in_pages(north: httpx2.AsyncClient) -> None:
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


async def test_firmware_is_forgotten_unless_a_campaign_uses_it(north: httpx2.AsyncClient) -> None:
    body = await prepared(north)
    used, unused = body["firmware_version_id"], (await north.post("/firmware", json=FIRMWARE)).json()["id"]
    await north.post(CAMPAIGNS, json=body)

    assert_problem(await north.delete(f"/firmware/{used}"), 409, "conflict")
    assert (await north.delete(f"/firmware/{unused}")).status_code == 204
    assert_problem(await north.delete(f"/firmware/{unused}"), 404, "not-found")
    assert (await north.get(f"/firmware/{used}")).status_code == 200


async def test_another_tenants_firmware_does_not_exist(pool: Pool, north: httpx2.AsyncClient) -> None:
    campaign = await prepared(north)
    path = f"/firmware/{campaign['firmware_version_id']}"
    async with calling(pool, "south") as south:
        await created(south)
        assert (await south.get("/firmware")).json()["total"] == 1
        assert_problem(await south.get(path), 404, "not-found")
        assert_problem(await south.delete(path), 404, "not-found")
        assert_problem(await south.post(CAMPAIGNS, json=campaign), 404, "not-found")
    assert (await north.get(path)).status_code == 200
