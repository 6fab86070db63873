"""The devices of a campaign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from rollwave.api.auth import Viewer
from rollwave.api.parameters import CampaignNumber, DbPool, Limit, TextCursor, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.executions import ExecutionList
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.document.model import MAX_COUNT
from rollwave.domain.retry import Reason
from rollwave.errors import Conflict
from rollwave.store import campaign_devices
from rollwave.store.labels import LabelsUnavailable

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

_ATTEMPT = "Only devices whose last failed attempt has this"
Code = Annotated[
    str | None, Query(pattern=r"^[A-Z0-9_]{0,64}$", description=f"{_ATTEMPT} code; empty: no code", examples=["E_BOOT"])
]
WaveNumber = Annotated[
    int | None,
    Query(ge=0, le=MAX_COUNT, description="Only devices of this wave, in a campaign with a policy document"),
]
SegmentNumber = Annotated[
    int | None,
    Query(ge=0, le=MAX_COUNT, description="Only devices of this segment, in a campaign with a policy document"),
]
_KeyValue = Annotated[str, Field(max_length=600, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*=[^\x00]*$")]
LabelFilter = Annotated[
    list[_KeyValue] | None,
    Query(
        max_length=10,
        description="Only devices with this label, as `key=value`; `key=`: devices that do not have the label. Given "
        "more than once: devices with all of these labels",
        examples=[["revision=B"]],
    ),
]
FromVersion = Annotated[
    str | None,
    Query(
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="Only devices that run this version, as they last said; empty: it is not known",
    ),
]


@router.get("/{campaign_id}/devices", summary="List a campaign's devices", responses=problems(404, 409))
async def list_campaign_devices(
    pool: DbPool,
    grant: Viewer,
    campaign_id: CampaignNumber,
    status: Annotated[ExecutionStatus | None, Query(description="Only rows with this status")] = None,
    code: Code = None,
    reason: Annotated[Reason | None, Query(description=f"{_ATTEMPT} reason")] = None,
    wave: WaveNumber = None,
    segment: SegmentNumber = None,
    label: LabelFilter = None,
    from_version: FromVersion = None,
    limit: Limit = 100,
    cursor: TextCursor = None,
) -> ExecutionList:
    """The progress of each device, ordered by device id.

    With `label` or `from_version`, `total` is null, and up to 10,000 devices are looked at for a page: a page may be
    short, also empty, and have a next one.
    """
    chosen = campaign_devices.Filter(status, code, reason, wave, keys_and_values(label or ()), from_version, segment)
    try:
        found = await campaign_devices.find(pool, grant.tenant_id, campaign_id, chosen, limit=limit, cursor=cursor)
    except LabelsUnavailable as error:
        raise Conflict(str(error), hint="Correct the view; `rollwave doctor` checks it.") from error
    return ExecutionList.model_validate(
        {
            "campaign_id": campaign_id,
            "devices": found.rows,
            "total": found.total,
            "next_cursor": found.next_cursor,
        }
    )


def keys_and_values(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Labels that were given as ``key=value``."""
    return tuple((key, value) for key, _, value in (label.partition("=") for label in labels))
