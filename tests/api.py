"""The API as a customer's program calls it, inside the test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from rollwave.api.app import create_app
from rollwave.domain.role import Role
from rollwave.settings import Settings
from rollwave.store import access
from rollwave.store.database import Pool

CUSTOMER = "/api/v1/customer"
CAMPAIGNS = "/ota/campaigns"
FIRMWARE = {"version": "2.1.0", "file_url": "https://files.example/fw.bin", "checksum_sha256": "ab" * 32}


@asynccontextmanager
async def calling(
    pool: Pool,
    tenant: str = "north",
    role: Role = Role.OPERATOR,
    *,
    key: str | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the customer routes, with a key of ``tenant``."""
    key = await access.create(pool, tenant, role) if key is None else key
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(create_app(pool, settings or Settings()), raise_app_exceptions=False),
        base_url=f"http://test{CUSTOMER}",
        headers={"Authorization": f"Bearer {key}"} if key else {},
    ) as client:
        yield client


async def prepare_campaign_body(client: httpx2.AsyncClient, *device_ids: str) -> dict[str, Any]:
    """Register firmware and a group ``site`` of these devices. Returns the body that creates a campaign over it."""
    answer = await client.post("/firmware", json=FIRMWARE)
    await client.put("/device-groups/site", json={"device_ids": device_ids or ["d1", "d2", "d3"]})
    return {"name": "spring", "firmware_version_id": answer.json()["id"], "target_group_id": "site"}


async def create_campaign(client: httpx2.AsyncClient, *device_ids: str) -> str:
    """Create a campaign over these devices. Returns its path."""
    answer = await client.post(CAMPAIGNS, json=await prepare_campaign_body(client, *device_ids))
    assert answer.status_code == 201, answer.text
    return f"{CAMPAIGNS}/{answer.json()['id']}"


def assert_problem(answer: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    """Assert that ``answer`` is a valid problem document, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["type"], problem["status"]) == (f"/problems/{slug}", status)
    return problem
