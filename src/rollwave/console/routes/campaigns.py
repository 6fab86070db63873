"""The list of campaigns."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from rollwave.api.parameters import RowCursor
from rollwave.console.campaign_list import CampaignLists
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.domain.campaign import CampaignStatus

router = APIRouter(route_class=ConsoleRoute)

Status = Annotated[CampaignStatus | None, Query()]


@router.get("/campaigns")
async def campaigns(request: Request, session: Viewer, status: Status = None, cursor: RowCursor = None) -> Response:
    """The tenant's campaigns."""
    return await page(request, "campaigns.html", await _values(request, session.tenant_id, status, cursor))


@router.get("/campaigns/rows")
async def campaign_rows(request: Request, session: Viewer, status: Status = None, cursor: RowCursor = None) -> Response:
    """Only the rows, which the page asks for again and again."""
    return await page(request, "panels/campaign_rows.html", await _values(request, session.tenant_id, status, cursor))


async def _values(
    request: Request, tenant_id: str, status: CampaignStatus | None, cursor: int | None
) -> dict[str, Any]:
    lists: CampaignLists = request.app.state.campaign_lists
    found = await lists.page(tenant_id, status, cursor)
    return {
        "rows": found.rows,
        "total": found.total,
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
