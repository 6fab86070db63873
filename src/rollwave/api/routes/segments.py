"""Segments of a campaign: the devices that windows and guardrails treat alike."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from rollwave.api.auth import Operator, Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, Limit, ServerSettings, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.campaigns import CampaignState
from rollwave.api.schemas.guardrails import Release
from rollwave.api.schemas.segments import SegmentList
from rollwave.domain.policy.document.model import MAX_COUNT
from rollwave.engine import operations
from rollwave.store import segments

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

SegmentCursor = Annotated[int | None, Query(ge=1, le=MAX_COUNT, description="`next_cursor` of the previous page")]
SegmentNumber = Annotated[int, Path(ge=1, le=MAX_COUNT, description="Number of the segment, from 1")]


@router.get("/{campaign_id}/segments", summary="List a campaign's segments", responses=problems(404))
async def list_segments(
    pool: DbPool, grant: Viewer, campaign_id: CampaignNumber, limit: Limit = 100, cursor: SegmentCursor = None
) -> SegmentList:
    """The groups of devices that windows and guardrails treat alike, with their devices by state, ordered by number.

    A campaign without a policy document has none.
    """
    found = await segments.page(pool, grant.tenant_id, campaign_id, limit=limit, after=cursor or 0)
    return SegmentList.model_validate(
        {
            "campaign_id": campaign_id,
            "segments": found.rows,
            "total": found.total,
            "next_cursor": found.next_cursor,
        }
    )


@router.post(
    "/{campaign_id}/segments/{number}/release",
    summary="Release a segment from quarantine",
    responses=problems(404, 409),
)
async def release_segment(
    pool: DbPool,
    settings: ServerSettings,
    grant: Operator,
    campaign_id: CampaignNumber,
    number: SegmentNumber,
    body: Release | None = None,
) -> CampaignState:
    """Send to the segment's devices again. The guardrails that put it under quarantine begin a new test for it.

    Releasing a segment that is not in quarantine changes nothing.
    """
    reason = body.reason if body else None
    status = await operations.release_segment(
        pool, settings, grant.tenant_id, campaign_id, number, actor=grant.key_id, reason=reason
    )
    return CampaignState(id=campaign_id, status=status)
