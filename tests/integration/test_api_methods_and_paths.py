"""HEAD answers as GET does, without a body. A trailing slash leads to the same route, without a redirect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI

from rollwave.api.app import create_app
from rollwave.api.ops import create_ops_app
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, prepare_campaign_body

PREFIXES = ["/api/v1/customer", "/customer"]


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


def asking(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")


async def ready() -> dict[str, str]:
    return {"broker": "ok"}


async def not_ready() -> dict[str, str]:
    return {"broker": "not subscribed"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_head_answers_as_get_does_without_a_body(pool: Pool, path: str) -> None:
    for app in (create_ops_app(ready), create_app(pool, Settings(), readiness=ready)):
        async with asking(app) as client:
            get, head = await client.get(path), await client.head(path)
        assert (get.status_code, head.status_code, head.content) == (200, 200, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        assert "Content-Length" in head.headers


async def test_head_on_readyz_returns_503_when_not_ready() -> None:
    async with asking(create_ops_app(not_ready)) as client:
        head = await client.head("/readyz")
    assert (head.status_code, head.content) == (503, b"")


async def test_head_works_on_every_get_route(north: httpx2.AsyncClient) -> None:
    campaign = (await north.post(CAMPAIGNS, json=await prepare_campaign_body(north))).json()["id"]
    for path in (
        *("/firmware", f"/firmware/{campaign}", "/devices", "/devices/d1", "/device-groups", "/device-groups/site"),
        *(CAMPAIGNS, *(f"{CAMPAIGNS}/{campaign}{more}" for more in ("", "/devices", "/events"))),
        "http://test/openapi.json",
    ):
        get, head = await north.get(path), await north.head(path)
        assert (get.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert head.headers["Content-Length"] == get.headers["Content-Length"], path


async def test_head_gets_the_errors_of_get(pool: Pool, north: httpx2.AsyncClient) -> None:
    missing = await north.head("/firmware/99")
    assert (missing.status_code, missing.content) == (404, b"")
    assert missing.headers["Content-Type"] == "application/problem+json"
    assert (await north.head(f"{CAMPAIGNS}/1/start")).status_code == 405
    async with calling(pool, key="") as nobody:
        assert (await nobody.head("/firmware")).status_code == 401


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_trailing_slash_is_the_same_route(north: httpx2.AsyncClient, prefix: str) -> None:
    base = f"http://test{prefix}"
    made = await north.post(f"{base}/firmware/", json=FIRMWARE)
    assert made.status_code == 201
    firmware = made.json()["id"]
    assert (await north.get(f"{base}/firmware/?limit=1")).json()["total"] == 1
    assert (await north.get(f"{base}/firmware/{firmware}/")).json()["id"] == firmware
    assert (await north.put(f"{base}/devices/d1/", json={"device_type": "gateway"})).status_code == 200
    group = await north.put(f"{base}/device-groups/site/", json={"device_ids": ["d1"]})
    assert group.json()["total"] == 1
    campaign = {"name": "spring", "firmware_version_id": firmware, "target_group_id": "site"}
    number = (await north.post(f"{base}{CAMPAIGNS}/", json=campaign)).json()["id"]
    started = await north.post(f"{base}{CAMPAIGNS}/{number}/start/")
    assert started.json() == {"id": number, "status": "RUNNING"}
    unused = (await north.post(f"{base}/firmware", json={**FIRMWARE, "version": "3"})).json()["id"]
    assert (await north.delete(f"{base}/firmware/{unused}/")).status_code == 204
    assert (await north.head(f"{base}/firmware/")).status_code == 200


async def test_a_trailing_slash_on_operations_is_the_same_route() -> None:
    async with asking(create_ops_app(ready)) as client:
        answers = await asyncio.gather(*(client.get(f"{path}/") for path in ("/livez", "/readyz", "/metrics")))
    assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_other_variants_of_a_path_get_404(north: httpx2.AsyncClient) -> None:
    for path in ("/firmware//", "//firmware", "/devices/a%2F", "/devices/a%2F/", "/nothing/", "http://test/"):
        assert_problem(await north.get(path), 404, "not-found")
    answer = await north.patch("/firmware/")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


async def test_the_openapi_document_lists_neither_head_nor_trailing_slashes(north: httpx2.AsyncClient) -> None:
    paths = (await north.get("http://test/openapi.json")).json()["paths"]
    assert [path for path in paths if path.endswith("/") or "head" in paths[path]] == []
