"""A dry run says which devices of the group other unfinished campaigns have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.store import devices, new_campaigns
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.queries import load
from tests.api import CAMPAIGNS, calling, prepare_campaign_body
from tests.console import signed_in
from tests.engine import Connection, connect
from tests.integration.test_console_new_campaign import filled, send

EARLIER = ("device-1", "device-2", "device-3", "device-4")


@pytest.fixture
async def north(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north") as client:
        yield client


@pytest.fixture
async def host(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def begun(client: httpx2.AsyncClient, name: str, *ids: str) -> tuple[int, dict[str, Any]]:
    """A campaign over these devices. Returns its id, and the body with which another over the group is created."""
    body = await prepare_campaign_body(client, *ids) | {"name": name}
    answer = await client.post(CAMPAIGNS, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], body


async def also_in(client: httpx2.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.post(CAMPAIGNS, json=body, params={"dry_run": "true"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["also_in"]
    return found


async def test_devices_that_another_unfinished_campaign_has_are_counted(
    north: httpx2.AsyncClient, host: Connection
) -> None:
    campaign, body = await begun(north, "Pump calibration, north", *EARLIER)
    await north.post(f"{CAMPAIGNS}/{campaign}/start")
    await host.execute(
        "UPDATE ota_device_status SET status = 'SUCCESS' WHERE campaign_id = $1 AND device_id = 'device-1'", campaign
    )
    [found] = await also_in(north, body)
    assert (found["campaign_id"], found["devices"], found["status"]) == (campaign, 3, "RUNNING")
    assert found["text"].startswith(
        f'3 of the 4 devices of the group are also in campaign {campaign} "Pump calibration, north" ('
    )
    assert found["text"].endswith("), which is running")
    await north.post(f"{CAMPAIGNS}/{campaign}/abort", json={})
    assert await also_in(north, body) == []


async def test_another_tenants_campaign_is_not_counted(pool: Pool, north: httpx2.AsyncClient) -> None:
    await begun(north, "North", *EARLIER)
    async with calling(pool, "south") as south:
        await devices.put_group(pool, "south", "g", list(EARLIER))
        body = await prepare_campaign_body(south, *EARLIER)
        assert await also_in(south, body) == []


async def test_the_form_shows_it_with_a_link(pool: Pool) -> None:
    async with signed_in(pool, "north", Role.OPERATOR) as operator, calling(pool, "north") as north:
        campaign, body = await begun(north, "Earlier", *EARLIER)
        form = await filled(operator) | {
            "firmware": str(body["firmware_version_id"]),
            "group": str(body["target_group_id"]),
        }
        shown = await send(operator, "preview", form)
    assert f"4 of the 4 devices of the group are also in campaign {campaign} &#34;Earlier&#34;" in shown.text
    assert f'href="/console/campaigns/{campaign}">Open it' in shown.text


async def test_a_large_campaign_is_never_read_as_a_whole(
    pool: Pool, north: httpx2.AsyncClient, host: Connection
) -> None:
    campaign, body = await begun(north, "Large", *EARLIER)
    await host.execute(
        "INSERT INTO ota_device_status (tenant_id, campaign_id, device_id)"
        " SELECT 'north', $1, 'other-' || n FROM generate_series(1, 50000) AS n",
        campaign,
    )
    async with tenant_transaction(pool, "north") as connection:
        await connection.execute("SET LOCAL enable_seqscan = on")
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) " + load("new_campaigns")["overlaps"],
            "north",
            str(body["target_group_id"]),
            new_campaigns.MAX_MEMBERS_LOOKED_UP,
            new_campaigns.MAX_OTHER_CAMPAIGNS,
        )
    lines = [row[0] for row in plan]
    assert not any("Seq Scan on ota_device_status" in line or "Hash" in line for line in lines), "\n".join(lines)
    assert any("Index" in line and "ota_device_status" in line for line in lines), "\n".join(lines)
