"""Unreadable messages: those of devices that the engine could not read, with the reason."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool
from rollwave.console import links
from rollwave.console.pages import done, page
from rollwave.console.rights import Operator, Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.domain.ids import MAX_BIGINT
from rollwave.store import quarantine
from rollwave.store.quarantine import MAX_ROWS_PER_TENANT

router = APIRouter(route_class=ConsoleRoute)

ROWS = 50
ADDRESS = "/console/quarantine"
_BEGINNING = 120
"""Characters of a payload that stand in the table."""


@router.get("/quarantine")
async def message_list(request: Request, pool: DbPool, session: Viewer, before: int | None = None) -> Response:
    """A page of the messages, newest first. ``before``: only those with a smaller id."""
    cursor = None if before is None else max(0, min(before, MAX_BIGINT))
    found = await quarantine.newest(pool, session.tenant_id, ROWS + 1, before=cursor)
    shown = found.samples[:ROWS]
    more = len(found.samples) > ROWS
    values = {
        "messages": shown,
        "beginning": _BEGINNING,
        "total": found.total,
        "most": MAX_ROWS_PER_TENANT,
        "first": ADDRESS if before is not None else "",
        "next": links.with_query(ADDRESS, before=shown[-1].id) if more else "",
        "links": links,
    }
    return await page(request, "quarantine.html", values)


@router.get("/quarantine/clear")
async def ask_clear(request: Request, pool: DbPool, session: Operator) -> Response:
    """The question before the messages are deleted."""
    found = await quarantine.newest(pool, session.tenant_id, 1)
    return await page(request, "confirm/clear_messages.html", {"total": found.total})


@router.post("/quarantine/clear")
async def clear(request: Request, pool: DbPool, session: Operator) -> Response:
    """Delete all messages of the tenant."""
    gone = await quarantine.clear(pool, session.tenant_id)
    return await done(request, f"{gone:,} message{'' if gone == 1 else 's'} deleted.", ADDRESS)
