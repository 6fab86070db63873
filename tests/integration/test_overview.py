"""The overview of a campaign, and its verdict: the same in the list, on the campaign's page and in the overview."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.store.database import Pool
from tests.api import CAMPAIGNS, assert_problem, calling, create_campaign


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


async def seen(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    """The overview, after a check that list and page have the same verdict."""
    overview = await client.get(f"{path}/overview")
    assert overview.status_code == 200, overview.text
    document: dict[str, Any] = overview.json()
    [row] = [
        each for each in (await client.get(CAMPAIGNS)).json()["campaigns"] if each["id"] == document["campaign_id"]
    ]
    page = (await client.get(path)).json()
    assert row["headline"] == page["headline"] == document["headline"]
    assert row["devices"] == document["devices"]
    return document


async def test_a_new_campaign_is_ok(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    found = await seen(north, path)
    assert found["headline"] == {"level": "ok", "rule": "none", "text": "Not started; 3 devices wait"}
    assert found["devices"] == {
        "total": 3,
        "PENDING": 3,
        "DOWNLOADING": 0,
        "INSTALLING": 0,
        "SUCCESS": 0,
        "FAILED": 0,
        "SKIPPED": 0,
    }
    assert found["actions"] == {
        "start": True,
        "pause": False,
        "resume": False,
        "abort": True,
        "cancel": True,
        "retry": 0,
    }
    assert [each["text"] for each in found["events"]] == ["created for 3 devices"]
    assert [(each["reason"], each["devices"]) for each in found["waiting"]] == [("status", 3)]


async def test_a_running_campaign_without_a_listener_says_so(north: httpx2.AsyncClient) -> None:
    path = await create_campaign(north)
    await north.post(f"{path}/start")
    found = await seen(north, path)
    assert found["headline"]["level"] == "stop"
    assert found["headline"]["text"].startswith("No listener is subscribed")


async def test_another_tenants_campaign_is_not_found(north: httpx2.AsyncClient, pool: Pool) -> None:
    path = await create_campaign(north)
    async with calling(pool, "south") as south:
        assert_problem(await south.get(f"{path}/overview"), 404, "not-found")
