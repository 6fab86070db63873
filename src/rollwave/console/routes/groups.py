"""Groups: a list, and the devices of one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool
from rollwave.console import links
from rollwave.console.downloads import PAGE, Form, Reader, download
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.errors import NotFound
from rollwave.store import devices
from rollwave.store.database import Pool
from rollwave.store.page import Page

router = APIRouter(route_class=ConsoleRoute)

ROWS = 100


@router.get("/groups")
async def group_list(request: Request, pool: DbPool, session: Viewer, cursor: str | None = None) -> Response:
    """A page of the tenant's groups, ordered by id."""
    found = await devices.find_groups(pool, session.tenant_id, limit=ROWS, cursor=cursor)
    values = {
        "groups": found.rows,
        "total": found.total,
        "first": "/console/groups" if cursor else "",
        "next": links.with_query("/console/groups", cursor=found.next_cursor) if found.next_cursor else "",
        "links": links,
    }
    return await page(request, "groups.html", values)


@router.get("/groups/{group_id}/devices.csv")
async def members_csv(pool: DbPool, session: Viewer, group_id: str) -> Response:
    """The devices of a group as CSV."""
    return await _download("csv", pool, session, group_id)


@router.get("/groups/{group_id}/devices.json")
async def members_json(pool: DbPool, session: Viewer, group_id: str) -> Response:
    """The devices of a group as JSON."""
    return await _download("json", pool, session, group_id)


@router.get("/groups/{group_id}")
async def group_page(
    request: Request, pool: DbPool, session: Viewer, group_id: str, cursor: str | None = None
) -> Response:
    """A group and a page of its devices, ordered by id."""
    _require_text(group_id)
    group, members = await devices.get_group(pool, session.tenant_id, group_id, limit=ROWS, cursor=cursor)
    address = links.group(group_id)
    known = await devices.get_devices(pool, session.tenant_id, [row["device_id"] for row in members.rows])
    values = {
        "group": group,
        "devices": known,
        "address": address,
        "first": address if cursor else "",
        "next": links.with_query(address, cursor=members.next_cursor) if members.next_cursor else "",
        "links": links,
    }
    return await page(request, "group.html", values)


async def _download(form: Form, pool: Pool, session: Session, group_id: str) -> Response:
    async def read(cursor: str | None) -> Page:
        return (await devices.get_group(pool, session.tenant_id, group_id, limit=PAGE, cursor=cursor)).members

    _require_text(group_id)
    return await download(form, ("group", group_id), ("device_id",), read, Reader(pool, session.grant))


def _require_text(group_id: str) -> None:
    if "\0" in group_id:  # which PostgreSQL takes in no text
        raise NotFound("There is no such group.")
