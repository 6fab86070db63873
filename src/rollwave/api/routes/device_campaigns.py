"""All campaigns of one device."""

from __future__ import annotations

from fastapi import APIRouter

from rollwave.api.auth import Viewer
from rollwave.api.parameters import DbPool, DeviceName, Limit, RowCursor, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.device_campaigns import DeviceCampaignList
from rollwave.store import device_campaigns

router = APIRouter(prefix="/customer", tags=["registry"], route_class=CustomerRoute)


@router.get("/devices/{device_id}/campaigns", summary="List a device's campaigns", responses=problems(404))
async def list_device_campaigns(
    pool: DbPool, grant: Viewer, device_id: DeviceName, limit: Limit = 100, cursor: RowCursor = None
) -> DeviceCampaignList:
    """The campaigns in which the device is or was, newest first, with its progress in each."""
    found = await device_campaigns.find(pool, grant.tenant_id, device_id, limit=limit, cursor=cursor)
    return DeviceCampaignList.model_validate(
        {"device_id": device_id, "campaigns": found.rows, "total": found.total, "next_cursor": found.next_cursor}
    )
