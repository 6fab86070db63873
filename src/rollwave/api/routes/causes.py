"""Why devices of a campaign fail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from rollwave.api.auth import Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.causes import Causes
from rollwave.domain.overview.causes import BY_PATTERN, parse_by
from rollwave.engine import causes
from rollwave.errors import Conflict
from rollwave.store.labels import LabelsUnavailable

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

GroupBy = Annotated[
    str | None,
    Query(
        max_length=300,
        pattern=BY_PATTERN,
        description="What to group by, separated by commas: `code`, `from_version`, and `label:KEY`, or `label` for "
        "the label that explains the failures best. Default: all three",
        examples=["code,label:revision,from_version"],
    ),
]
MaxCauses = Annotated[int, Query(ge=1, le=1000, description="Maximum number of causes")]


@router.get("/{campaign_id}/causes", summary="Why a campaign's devices fail", responses=problems(404, 409))
async def get_campaign_causes(
    pool: DbPool, grant: Viewer, campaign_id: CampaignNumber, by: GroupBy = None, limit: MaxCauses = 100
) -> Causes:
    """The last failures of the campaign, grouped by failure, by one label and by the version before the update.

    The last 5,000 failures are read. A failure without a code is grouped by its reason and error message.
    """
    try:
        found = await causes.of(pool, grant.tenant_id, campaign_id, parse_by(by))
    except LabelsUnavailable as error:
        raise Conflict(str(error), hint="Correct the view; `rollwave doctor` checks it.") from error
    chosen = found.by
    parts = [("code", chosen.code), (f"label:{chosen.label}", chosen.label), ("from_version", chosen.version)]
    return Causes.model_validate(
        {
            "campaign_id": campaign_id,
            "failed": found.failed,
            "read": found.read,
            "by": [part for part, is_used in parts if is_used],
            "label": chosen.label,
            "text": found.text,
            "causes": [each.to_json() for each in found.found[:limit]],
            "others": sum(each.devices for each in found.found[limit:]),
        }
    )
