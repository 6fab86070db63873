"""Search: campaigns, devices, groups and firmware, by number, name or the beginning of an id."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool
from rollwave.console import links
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.store import search
from rollwave.store.search import MAX_FOUND, Found

router = APIRouter(route_class=ConsoleRoute)

MAX_TEXT = 200
"""Maximum number of characters that are searched for."""


@router.get("/search")
async def results(request: Request, pool: DbPool, session: Viewer, q: str = "") -> Response:
    """What the search found. Without text, nothing is searched for."""
    text = q.strip().replace("\0", "")[:MAX_TEXT]
    found = await search.find(pool, session.tenant_id, text) if text else Found([], [], [], [])
    values = {
        "q": text,
        "found": found,
        "nothing": not (found.campaigns or found.devices or found.groups or found.firmware),
        "most": MAX_FOUND,
        "links": links,
    }
    return await page(request, "search.html", values)
