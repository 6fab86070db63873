"""The console as a browser uses it, inside the test's process: cookies are kept, redirects are not followed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from rollwave.api.app import create_app
from rollwave.console.app import install
from rollwave.domain.role import Role
from rollwave.settings import Settings
from rollwave.store import access
from rollwave.store.database import Pool

_TOKEN = re.compile(r'name="csrf_token" value="([0-9a-f]{64,128})"')


@asynccontextmanager
async def visiting(pool: Pool, *, settings: Settings | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that has not logged in."""
    settings = settings or Settings()
    app = create_app(pool, settings)
    install(app, pool, settings)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@asynccontextmanager
async def signed_in(
    pool: Pool, tenant: str = "north", role: Role = Role.OPERATOR, *, key: str | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser that has logged in with a key of ``tenant``."""
    key = await access.create(pool, tenant, role) if key is None else key
    async with visiting(pool) as client:
        answer = await log_in(client, key)
        assert answer.status_code == 303, answer.text
        yield client


async def log_in(client: httpx2.AsyncClient, key: str, following: str = "") -> httpx2.Response:
    """Send the login form."""
    shown = await client.get("/console/login", params={"next": following})
    return await client.post("/console/login", data={"csrf_token": token(shown), "key": key, "next": following})


def token(shown: httpx2.Response) -> str:
    """The token of the forms of a page."""
    found = _TOKEN.search(shown.text)
    assert found, shown.text
    return found[1]


async def submit(
    client: httpx2.AsyncClient, action: str, page: str = "/console/campaigns", **fields: str
) -> httpx2.Response:
    """Send a form of ``page`` to ``action``, with its token."""
    shown = await client.get(page)
    headers = {"Referer": f"http://test{page}"}
    return await client.post(action, data={"csrf_token": token(shown), **fields}, headers=headers)
