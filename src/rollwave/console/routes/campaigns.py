"""The list of campaigns."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from rollwave.api.parameters import DbPool, RowCursor
from rollwave.console import formats
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.domain.campaign import CampaignStatus
from rollwave.store import views
from rollwave.store.moments import Document

router = APIRouter(route_class=ConsoleRoute)

PAGE = 100
"""Rows of a page."""

Status = Annotated[CampaignStatus | None, Query()]


@router.get("/campaigns")
async def campaigns(
    request: Request, pool: DbPool, session: Viewer, status: Status = None, cursor: RowCursor = None
) -> Response:
    """The tenant's campaigns."""
    return await page(request, "campaigns.html", await _values(pool, session.tenant_id, status, cursor))


@router.get("/campaigns/rows")
async def campaign_rows(
    request: Request, pool: DbPool, session: Viewer, status: Status = None, cursor: RowCursor = None
) -> Response:
    """Only the rows, which the page asks for again and again."""
    return await page(request, "panels/campaign_rows.html", await _values(pool, session.tenant_id, status, cursor))


async def _values(pool: DbPool, tenant_id: str, status: CampaignStatus | None, cursor: int | None) -> dict[str, Any]:
    found = await views.campaigns(pool, tenant_id, status=status, limit=PAGE, cursor=cursor)
    return {
        "rows": [_row(each) for each in found.rows],
        "statuses": [each.value for each in CampaignStatus],
        "status": status.value if status else "",
        "cursor": cursor,
        "query": _query(status, cursor),
        "first_page": f"/console/campaigns{_query(status, None)}",
        "next_page": f"/console/campaigns{_query(status, found.next_cursor)}" if found.next_cursor else "",
    }


def _query(status: CampaignStatus | None, cursor: int | None) -> str:
    given = {name: value for name, value in (("status", status and status.value), ("cursor", cursor)) if value}
    return f"?{urlencode(given)}" if given else ""


def _row(campaign: Document) -> Document:
    total = campaign["total_devices"] or 0
    finished = (campaign["succeeded"] or 0) + (campaign["failed"] or 0)
    return {
        "id": campaign["id"],
        "status": campaign["status"],
        "name": campaign["name"] or f"campaign {campaign['id']}",
        "version": campaign["firmware_version"] or formats.NONE,
        "finished_share": finished / total if total else None,
        "failed": campaign["failed"],
        "verdict": "",
        "wave": campaign["wave"],
        "at": campaign["completed_at"] or campaign["started_at"] or campaign["created_at"],
    }
