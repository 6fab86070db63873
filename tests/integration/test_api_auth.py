"""API keys: their tenant, their rights, and when they stop working."""

from __future__ import annotations

import logging
from datetime import timedelta

import asyncpg
import pytest

from rollwave.domain.role import Role
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store import access
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.api import CAMPAIGNS, FIRMWARE, assert_problem, calling, create_campaign

JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub3J0aCJ9."


async def test_an_unknown_expired_or_revoked_key_gets_401(pool: Pool) -> None:
    good = await access.create(pool, "north", Role.ADMIN)
    expired = await access.create(pool, "north", Role.ADMIN, expires_in=timedelta(seconds=-1))
    revoked = await access.create(pool, "north", Role.ADMIN)
    await access.revoke(pool, "north", revoked.split(".")[-2])
    await access.create(pool, "south", Role.ADMIN)
    _, tenant, key_id, secret = good.split(".")
    wrong = {
        "none": "",
        "no key": "x",
        "a JWT": JWT,
        "another brand": good.replace("rollwave", "other"),
        "another tenant": good.replace("north", "south"),
        "an unknown tenant": good.replace("north", "east"),
        "no tenant": f"rollwave..{key_id}.{secret}",
        "a tenant that cannot be": f"rollwave.no'rth.{key_id}.{secret}",
        "another id": f"rollwave.{tenant}.{'0' * 16}.{secret}",
        "another secret": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "no secret": f"rollwave.{tenant}.{key_id}.",
        "expired": expired,
        "revoked": revoked,
    }
    for what, key in wrong.items():
        async with calling(pool, key=key) as client:
            answer = await client.get("/firmware")
            assert answer.status_code == 401, what
            assert_problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    async with calling(pool, key=good) as client:
        assert (await client.get("/firmware")).status_code == 200
        assert (await client.get("/firmware", headers={"Authorization": f"Basic {good}"})).status_code == 401
        assert (await client.get("/firmware", headers={"Authorization": f"bearer {good}"})).status_code == 200


async def test_an_api_key_expires_by_the_databases_clock(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER, expires_in=timedelta(hours=1))
    async with calling(pool, key=key) as client:
        assert (await client.get("/firmware")).status_code == 200
        await pool.execute("UPDATE rollwave_api_keys SET expires_at = now() - interval '1 ms'")
        assert (await client.get("/firmware")).status_code == 401


@pytest.mark.parametrize(
    ("role", "may_change"),
    [(Role.VIEWER, False), (Role.OPERATOR, True), (Role.APPROVER, True), (Role.ADMIN, True)],
)
async def test_a_viewer_key_can_read_and_change_nothing(pool: Pool, role: Role, may_change: bool) -> None:
    async with calling(pool, "north") as operator:
        path = await create_campaign(operator)
    writes = [
        ("POST", "/firmware", FIRMWARE),
        ("DELETE", "/firmware/999", None),
        ("PUT", "/devices/d9", {}),
        ("PUT", "/device-groups/site", {"device_ids": ["d9"]}),
        ("POST", CAMPAIGNS, {"name": "x", "firmware_version_id": 1, "target_group_id": "site"}),
        *(("POST", f"{path}/{move}", None) for move in ("start", "pause", "abort")),
    ]
    async with calling(pool, "north", role) as client:
        for read in ("/firmware", "/devices", "/device-groups", CAMPAIGNS, path, f"{path}/devices", f"{path}/events"):
            assert (await client.get(read)).status_code == 200
        answers = [await client.request(method, where, json=body) for method, where, body in writes]
        if not may_change:
            assert (await client.get("/devices")).json()["total"] == 3
            assert (await client.post("/firmware", json={"nonsense": 1})).status_code == 403
    assert {answer.status_code == 403 for answer in answers} == {not may_change}


async def test_an_api_key_works_for_a_tenant_id_with_dots(pool: Pool) -> None:
    async with calling(pool, "north.site-1.a:b_c") as client:
        assert (await client.post("/firmware", json=FIRMWARE)).json()["tenant_id"] == "north.site-1.a:b_c"


async def test_only_a_digest_of_an_api_key_is_stored(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER, name="dashboard")
    secret = key.rpartition(".")[2]
    stored = await pool.fetchval("SELECT k::text || encode(secret_sha256, 'escape') FROM rollwave_api_keys k")
    assert secret not in stored
    assert len(secret) == 43  # 256 bits.


async def test_api_keys_are_never_logged(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = await access.create(pool, "north", Role.VIEWER)
    async with calling(pool, key=key) as client:
        await client.get("/firmware")
        await client.post("/firmware", json=FIRMWARE)
    assert key.rpartition(".")[2] not in caplog.text


async def test_api_keys_are_listed_and_revoked(pool: Pool) -> None:
    key = await access.create(pool, "north", Role.VIEWER, name="dashboard")
    await access.create(pool, "south", Role.ADMIN)
    (row,) = await access.list_keys(pool, "north")
    assert (row.name, row.role, row.revoked_at) == ("dashboard", "viewer", None)
    assert row.key_id in key
    await access.revoke(pool, "north", row.key_id)
    (revoked,) = await access.list_keys(pool, "north")
    await access.revoke(pool, "north", row.key_id)
    assert revoked.revoked_at is not None
    assert await access.list_keys(pool, "north") == [revoked]
    with pytest.raises(NotFound):
        await access.revoke(pool, "south", row.key_id)


@pytest.mark.parametrize("tenant", ["", " a", "a/b", "x" * 129, "n\x85rth"])
async def test_an_api_key_needs_a_tenant_id(pool: Pool, tenant: str) -> None:
    with pytest.raises(InvalidInput):
        await access.create(pool, tenant, Role.VIEWER)


async def test_an_api_key_is_only_created_for_a_tenant_of_the_host(empty_database: str) -> None:
    host = await asyncpg.connect(empty_database)
    await host.execute(
        "CREATE TABLE tenants (tenant_id text, plan text NOT NULL); INSERT INTO tenants VALUES ('north', 'gold')"
    )
    await host.close()
    await migrate(empty_database)
    async with create_pool(empty_database) as pool:
        assert await access.create(pool, "north", Role.VIEWER)
        with pytest.raises(Conflict, match="not in the table tenants"):
            await access.create(pool, "south", Role.VIEWER)
        assert await pool.fetchval("SELECT count(*) FROM tenants") == 1
