"""The past of a campaign, its plan and its forecast."""

from __future__ import annotations

from fastapi import APIRouter

from rollwave.api.auth import Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, ServerSettings, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.timeline import Forecast, Marker, PlanPoint, Point, Timeline
from rollwave.engine import timeline

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)


@router.get("/{campaign_id}/timeline", summary="Show a campaign's past and forecast", responses=problems(404))
async def campaign_timeline(
    pool: DbPool, settings: ServerSettings, grant: Viewer, campaign_id: CampaignNumber
) -> Timeline:
    """The devices by state from time to time, what the policy planned, and when the campaign will be done.

    There are at most a few hundred points, however long the campaign runs: old ones are farther apart.
    """
    found = await timeline.read(pool, settings, grant.tenant_id, campaign_id)
    return Timeline(
        campaign_id=campaign_id,
        points=[Point.model_validate(each) for each in found.points],
        plan=None if found.plan is None else [PlanPoint.model_validate(each) for each in found.plan],
        forecast=Forecast.model_validate(found.forecast),
        rate_per_minute=found.rate_per_minute,
        recent=list(found.recent),
        markers=[Marker.model_validate(each) for each in found.markers],
    )
