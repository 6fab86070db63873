"""One search over everything that has a name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from rollwave.api.auth import Viewer
from rollwave.api.fields import Text
from rollwave.api.parameters import DbPool, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.search import Found
from rollwave.store import search

router = APIRouter(prefix="/customer", tags=["search"], route_class=CustomerRoute)

Searched = Annotated[
    Text, Query(description="A number, a part of a name, or the beginning of an id", examples=["gw-00"])
]


@router.get("/search", summary="Search", responses=problems())
async def search_everything(pool: DbPool, grant: Viewer, q: Searched) -> Found:
    """Campaigns by number or part of a name, devices and groups by the beginning of an id, firmware by version.

    The newest 2,000 campaigns and firmware versions are looked at.
    """
    found = await search.find(pool, grant.tenant_id, q)
    return Found.model_validate(
        {
            "campaigns": found.campaigns,
            "devices": found.devices,
            "device_groups": found.groups,
            "firmware": found.firmware,
        }
    )
