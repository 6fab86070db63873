"""The devices of a campaign as one byte each, for a picture of all of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from rollwave.api.auth import Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.field import DeviceAt
from rollwave.engine.field import Fields
from rollwave.store import field

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

MAX_INDEX = 2**31 - 1
_OCTETS = "application/octet-stream"
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A byte for each device: 0 PENDING, 1 DOWNLOADING, 2 INSTALLING, 3 SUCCESS, 4 FAILED, 5 SKIPPED",
        "content": {_OCTETS: {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "Rollwave-Generation": {
                "description": "Changes when the order or the membership of the devices changes",
                "schema": {"type": "string"},
            },
            "Rollwave-Sequence": {
                "description": "When the field was read: microseconds since 1970 by the database's clock",
                "schema": {"type": "integer"},
            },
        },
    }
}


def _fields(request: Request) -> Fields:
    fields: Fields = request.app.state.fields
    return fields


SharedFields = Annotated[Fields, Depends(_fields)]
DeviceIndex = Annotated[int, Path(ge=0, le=MAX_INDEX, description="Index of the device in the field, from 0")]


@router.get(
    "/{campaign_id}/field",
    summary="The states of all devices of a campaign",
    response_class=Response,
    responses={**problems(404), **_ANSWER},
)
async def get_campaign_field(
    fields: SharedFields, grant: Viewer, campaign_id: CampaignNumber, request: Request
) -> Response:
    """One byte for each device, in dispatch order: by wave and place in the queue.

    A field is kept for a moment for all who ask: it is at most 20 times as old as reading it took.
    """
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        found, body = await fields.read_zipped(grant.tenant_id, campaign_id)
        headers["Content-Encoding"] = "gzip"
    else:
        found = await fields.read(grant.tenant_id, campaign_id)
        body = found.states
    headers |= {"Rollwave-Generation": found.generation, "Rollwave-Sequence": str(found.sequence)}
    return Response(body, media_type=_OCTETS, headers=headers)


@router.get("/{campaign_id}/field/{index}", summary="One device of the field", responses=problems(404))
async def get_campaign_field_device(
    pool: DbPool, grant: Viewer, campaign_id: CampaignNumber, index: DeviceIndex
) -> DeviceAt:
    """The device at an index of the field."""
    found = await field.device_at(pool, grant.tenant_id, campaign_id, index)
    return DeviceAt(campaign_id=campaign_id, index=index, device_id=found.device_id, status=found.status)
