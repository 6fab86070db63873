"""The overview of a campaign: all that its page shows."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rollwave.api.auth import Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, ServerSettings, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.overview import Overview
from rollwave.engine import overview
from rollwave.engine.causes import TopCauses

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)


@router.get("/{campaign_id}/overview", summary="See a campaign at a glance", responses=problems(404))
async def get_campaign_overview(
    pool: DbPool, settings: ServerSettings, grant: Viewer, campaign_id: CampaignNumber, request: Request
) -> Overview:
    """The verdict, and what it is based on: devices, waves, guardrails, why devices wait, the last events.

    Costs about the same for ten devices as for a million. To watch a campaign, use its stream of events instead of
    asking again and again.
    """
    top: TopCauses = request.app.state.top_causes
    return Overview.model_validate(await overview.overview(pool, settings, grant.tenant_id, campaign_id, top))
