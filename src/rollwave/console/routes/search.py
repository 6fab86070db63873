"""Search: campaigns, devices, groups and firmware, by number, name or the beginning of an id."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool
from rollwave.console import links
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.store import devices, search
from rollwave.store.search import MAX_FOUND, Found

router = APIRouter(route_class=ConsoleRoute)

MAX_TEXT = 200
"""Maximum number of characters that are searched for."""


@router.get("/search")
async def results(request: Request, pool: DbPool, session: Viewer, q: str = "") -> Response:
    """What the search found. Without text, nothing is searched for."""
    text = q.strip().replace("\0", "")[:MAX_TEXT]
    found = await search.find(pool, session.tenant_id, text) if text else Found([], [], [], [])
    about = {each["device_id"]: each for each in await devices.get_devices(pool, session.tenant_id, found.devices)}
    values = {
        "q": text,
        "about": about,
        "exact": _exact(text, found),
        "found": found,
        "nothing": not (found.campaigns or found.devices or found.groups or found.firmware),
        "most": MAX_FOUND,
        "links": links,
    }
    return await page(request, "search.html", values)


def _exact(text: str, found: Found) -> Sequence[tuple[str, str, str]]:
    """What has exactly this id or number: its kind, its text and its address."""
    campaigns = [each for each in found.campaigns if str(each["id"]) == text]
    return [
        *(("Device", each, links.device(each)) for each in found.devices if each == text),
        *(("Group", each, links.group(each)) for each in found.groups if each == text),
        *(
            ("Campaign", each["name"] or f"campaign {each['id']}", f"/console/campaigns/{each['id']}")
            for each in campaigns
        ),
    ]
