"""Messages of devices that could not be read."""

from __future__ import annotations

from base64 import b64encode

from fastapi import APIRouter

from rollwave.api.auth import Viewer
from rollwave.api.parameters import DbPool, Limit, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.quarantine import BadMessage, BadMessageList
from rollwave.store import quarantine

router = APIRouter(prefix="/customer", tags=["quarantine"], route_class=CustomerRoute)


@router.get("/quarantine", summary="List messages that could not be read", responses=problems())
async def list_quarantine(pool: DbPool, grant: Viewer, limit: Limit = 100) -> BadMessageList:
    """The newest messages of devices that could not be read, and the reasons. At most 1,000 are kept."""
    found = await quarantine.newest(pool, grant.tenant_id, limit)
    messages = [
        BadMessage(
            id=each.id,
            device_id=each.device_id,
            received_at=each.received_at,
            reason=each.reason,
            payload=each.payload.decode("utf-8", "replace"),
            payload_base64=b64encode(each.payload).decode(),
            cut=each.cut,
        )
        for each in found.samples
    ]
    return BadMessageList(messages=messages, total=found.total)
