"""API keys, and messages that could not be read, over HTTP."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator

import httpx2
import pytest

from rollwave.domain.role import Role
from rollwave.store import access, quarantine
from rollwave.store.database import Pool, tenant_transaction
from tests.api import assert_problem, calling


@pytest.fixture
async def admin(pool: Pool) -> AsyncIterator[httpx2.AsyncClient]:
    async with calling(pool, "north", Role.ADMIN) as client:
        yield client


async def test_a_key_is_created_used_listed_and_revoked(pool: Pool, admin: httpx2.AsyncClient) -> None:
    answer = await admin.post("/api-keys", json={"name": "robot", "role": "viewer", "expires_in_days": 30})
    assert answer.status_code == 201
    made = answer.json()
    assert made["key"].startswith(f"rollwave.north.{made['key_id']}.")

    async def shown() -> dict[str, str | None]:
        keys = (await admin.get("/api-keys")).json()["api_keys"]
        return next(each for each in keys if each["key_id"] == made["key_id"])

    before = await shown()
    assert (before["name"], before["role"], before["last_used_at"], before["revoked_at"]) == (
        "robot",
        "viewer",
        None,
        None,
    )
    assert before["expires_at"]
    assert made["key"].rpartition(".")[2] not in (await admin.get("/api-keys")).text
    async with calling(pool, "north", key=made["key"]) as robot:
        assert (await robot.get("/devices")).status_code == 200
        used = (await shown())["last_used_at"]
        assert used
        assert (await robot.get("/devices")).status_code == 200
        assert (await shown())["last_used_at"] == used  # stored at most once an hour
        await pool.execute("UPDATE rollwave_api_keys SET last_used_at = now() - interval '2 hours'")
        assert (await robot.get("/devices")).status_code == 200
        assert (await shown())["last_used_at"] > used  # type: ignore[operator]
        assert (await admin.post(f"/api-keys/{made['key_id']}/revoke")).status_code == 204
        assert (await robot.get("/devices")).status_code == 401
    assert (await shown())["revoked_at"]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER])
async def test_only_an_admin_sees_and_changes_keys(pool: Pool, role: Role) -> None:
    async with calling(pool, "north", role) as client:
        assert_problem(await client.get("/api-keys"), 403, "forbidden")
        assert_problem(await client.post("/api-keys", json={"role": "viewer"}), 403, "forbidden")
        assert_problem(await client.post(f"/api-keys/{'0' * 16}/revoke"), 403, "forbidden")


async def test_keys_of_another_tenant_are_not_found(pool: Pool, admin: httpx2.AsyncClient) -> None:
    theirs = access.key_id_of(await access.create(pool, "south", Role.ADMIN))
    assert_problem(await admin.post(f"/api-keys/{theirs}/revoke"), 404, "not-found")
    assert theirs not in [each["key_id"] for each in (await admin.get("/api-keys")).json()["api_keys"]]


@pytest.mark.parametrize(
    "body", [{}, {"role": "root"}, {"role": "viewer", "expires_in_days": 0}, {"role": "viewer", "x": 1}]
)
async def test_a_wrong_key_is_refused(admin: httpx2.AsyncClient, body: dict[str, object]) -> None:
    assert_problem(await admin.post("/api-keys", json=body), 422, "invalid-input")


async def test_bad_messages_are_listed_newest_first(pool: Pool, admin: httpx2.AsyncClient) -> None:
    await access.create(pool, "south", Role.VIEWER)
    for tenant, payload in (("north", b"{"), ("north", b"\xff<script>"), ("south", b"x")):
        async with tenant_transaction(pool, tenant) as connection:
            await quarantine.keep(connection, tenant, [quarantine.Sample("d1", "not JSON", payload)])
    found = (await admin.get("/quarantine")).json()
    assert found["total"] == 2
    assert [b64decode(each["payload_base64"]) for each in found["messages"]] == [b"\xff<script>", b"{"]
    newest = found["messages"][0]
    assert (newest["device_id"], newest["reason"], newest["payload"], newest["cut"]) == (
        *("d1", "not JSON", "\ufffd<script>", False),
    )
    assert len((await admin.get("/quarantine", params={"limit": 1})).json()["messages"]) == 1
