"""What changes something in the console: no GET does, and every form needs its token and the role of its action."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rollwave.console.app import ROUTES
from rollwave.domain.role import Role
from rollwave.store import access, brakes, console_secret
from rollwave.store.database import Pool
from tests.console import log_in, signed_in, submit, token, visiting
from tests.integration.test_console_campaign import prepare, start

DAY = timedelta(days=1)
OF_THE_BROWSER = {"/login", "/logout", "/theme"}
"""Forms that change cookies only."""
HASH = "SELECT md5(coalesce(string_agg(row::text, '' ORDER BY row::text), '')) FROM ({rows}) r"
NAMES = {"index": "0", "device_id": "pump-0001", "group_id": "pumps", "firmware_id": "1", "name": "summer"}


async def contents(pool: Pool) -> dict[str, str]:
    """All rows of the database by their table, as one hash each, but for the time at which a key was used last."""
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    found = {}
    for (table,) in tables:
        rows = f"SELECT to_jsonb(t) - 'last_used_at' AS row FROM {table} t"
        found[table] = await pool.fetchval(HASH.format(rows=rows))
    return found


def addresses(method: str, campaign: str, key: str) -> Iterator[str]:
    """The addresses of the console's routes with this method, about things that exist."""
    filled = NAMES | {"campaign_id": campaign, "key_id": key}
    for module in ROUTES:
        for route in module.router.routes:
            path, methods = getattr(route, "path", ""), getattr(route, "methods", ())
            if method in methods and not path.endswith("/live"):  # a stream does not end by itself
                for action in ("abort", "cancel", "retry") if "{action}" in path else ("",):
                    named = path.replace("{action}", action)
                    yield "/console" + re.sub(r"{(\w+)}", lambda found: filled[found[1]], named)


@pytest.fixture
async def campaign(pool: Pool) -> str:
    """A running campaign of the tenant north, with a freeze beside it. The address of its page."""
    page = await prepare(pool)
    await start(pool, page)
    now = datetime.now(UTC)
    await brakes.add_freeze(pool, "north", "summer", now + DAY, now + 2 * DAY, actor="test", reason=None)
    await console_secret.read(pool)
    return page


async def test_no_get_changes_anything(pool: Pool, campaign: str) -> None:
    key = await access.create(pool, "north", Role.ADMIN)
    async with signed_in(pool, "north", Role.ADMIN, key=key) as client:
        before = await contents(pool)
        asked = list(addresses("GET", campaign.rpartition("/")[2], key.split(".")[-2]))
        answers = [(address, (await client.get(address)).status_code) for address in asked]
    assert len(asked) > 25
    assert [each for each in answers if each[1] not in (200, 303)] == []
    assert await contents(pool) == before


async def test_every_change_needs_the_token_of_the_session_and_a_role(pool: Pool, campaign: str) -> None:
    key = await access.create(pool, "north", Role.VIEWER)
    changing = [
        each
        for each in addresses("POST", campaign.rpartition("/")[2], key.split(".")[-2])
        if each.removeprefix("/console") not in OF_THE_BROWSER
    ]
    assert len(changing) > 10
    before = await contents(pool)
    async with visiting(pool) as stranger, signed_in(pool, "north", Role.ADMIN) as admin, visiting(pool) as viewer:
        before = await contents(pool)
        await log_in(viewer, key)
        foreign = token(await viewer.get("/console/campaigns"))
        for address in changing:
            assert (await stranger.post(address)).status_code in (303, 401), address
            for forged in ({}, {"csrf_token": "0" * 64}, {"csrf_token": foreign}):
                assert (await admin.post(address, data=forged)).status_code == 403, address
            refused = await submit(viewer, address, "/console/campaigns")
            assert refused.status_code == 403, address
            assert "This needs the role" in refused.text, address
    assert await contents(pool) == before
    assert await brakes.halt_of(pool, "north") is None
