"""Campaigns: create, start, pause, abort and watch."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from rollwave.api.auth import Operator, Viewer
from rollwave.api.parameters import (
    CampaignNumber,
    DbPool,
    DeviceName,
    Limit,
    RowCursor,
    ServerSettings,
    problems,
)
from rollwave.api.policy_body import DryRun, advice_fields, preview_fields
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.campaigns import (
    Abort,
    CampaignDetail,
    CampaignIn,
    CampaignList,
    CampaignState,
    CreatedCampaign,
    Promotion,
    RetriedDevices,
)
from rollwave.api.schemas.executions import EventList, Explanation, Waiting
from rollwave.api.schemas.policies import PolicyPreview
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.ids import MAX_BIGINT
from rollwave.domain.policy.advice import Advice
from rollwave.domain.policy.document.fields import CODE_PATTERN, MAX_NAME, NAME_PATTERN
from rollwave.domain.policy.document.problems import parse_member
from rollwave.domain.retry import Reason
from rollwave.engine import explain, new_campaign, operations, overview, policy_advice, promote, retry
from rollwave.store import views
from rollwave.store.new_campaigns import NewCampaign
from rollwave.store.retries import Which

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

WaveName = Annotated[str, Path(max_length=MAX_NAME, pattern=NAME_PATTERN, description="Name of the wave")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,200}$",
        description="Any text of your choice. A repeated request with the same key creates no second campaign",
    ),
]


@router.get("", summary="List campaigns", responses=problems())
async def list_campaigns(
    pool: DbPool,
    settings: ServerSettings,
    grant: Viewer,
    status: Annotated[CampaignStatus | None, Query(description="Only rows with this status")] = None,
    limit: Limit = 100,
    cursor: RowCursor = None,
) -> CampaignList:
    """The tenant's campaigns with their verdicts, newest first."""
    found = await overview.campaigns(pool, settings, grant.tenant_id, status=status, limit=limit, cursor=cursor)
    return CampaignList.model_validate(
        {"campaigns": found.rows, "total": found.total, "next_cursor": found.next_cursor}
    )


@router.post(
    "",
    status_code=201,
    summary="Create a campaign",
    response_model=CreatedCampaign,
    responses={**problems(404, 409), 200: {"model": PolicyPreview, "description": "The answer of a dry run"}},
)
async def create_campaign(
    pool: DbPool,
    settings: ServerSettings,
    grant: Operator,
    body: CampaignIn,
    request: Request,
    response: Response,
    dry_run: DryRun = False,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Create a campaign that brings the devices of a group to a firmware version. Nothing is sent until it is started.

    The devices of a group of more than 10,000 are targeted after the answer; `targeted_devices` shows the progress. The
    campaign may be started, paused and aborted meanwhile. It sends when all devices are targeted.

    With an `Idempotency-Key`, a repeated request answers with the same campaign. Another request with a used key is a
    conflict, and so is a group without members.
    """
    new = NewCampaign(**body.model_dump(exclude={"policy"}))
    policy = parse_member(await request.body(), "policy") if isinstance(body.policy, dict) else body.policy
    if dry_run:
        preview = await new_campaign.preview_campaign(pool, settings, grant.tenant_id, new, policy=policy)
        return JSONResponse(PolicyPreview.model_validate(preview_fields(preview)).model_dump(mode="json"))
    campaign_id = await new_campaign.create_campaign(
        pool, grant.tenant_id, new, actor=grant.key_id, policy=policy, idempotency_key=idempotency_key
    )
    response.headers["Location"] = f"/api/v1/customer/ota/campaigns/{campaign_id}"
    advice = Advice((), ()) if policy is None else await policy_advice.on_campaign(pool, grant.tenant_id, campaign_id)
    found = await overview.campaign(pool, settings, grant.tenant_id, campaign_id)
    return CreatedCampaign.model_validate(found | advice_fields(advice))


@router.get("/{campaign_id}", summary="Read a campaign", responses=problems(404))
async def get_campaign(
    pool: DbPool, settings: ServerSettings, grant: Viewer, campaign_id: CampaignNumber
) -> CampaignDetail:
    """A campaign with its firmware, its verdict, its waves and its devices by status."""
    return CampaignDetail.model_validate(await overview.campaign(pool, settings, grant.tenant_id, campaign_id))


@router.post("/{campaign_id}/start", summary="Start or resume a campaign", responses=problems(404, 409))
async def start_campaign(pool: DbPool, grant: Operator, campaign_id: CampaignNumber) -> CampaignState:
    """Start sending, or continue after a pause. Starting a running campaign changes nothing.

    A campaign whose policy ignores freezes takes an approver.
    """
    status = await operations.start_campaign(pool, grant.tenant_id, campaign_id, actor=grant.key_id, role=grant.role)
    return CampaignState(id=campaign_id, status=status)


@router.post("/{campaign_id}/pause", summary="Pause a campaign", responses=problems(404, 409))
async def pause_campaign(pool: DbPool, grant: Operator, campaign_id: CampaignNumber) -> CampaignState:
    """Stop sending until the campaign is started again. Reports still count. Pausing again changes nothing."""
    status = await operations.pause_campaign(pool, grant.tenant_id, campaign_id, actor=grant.key_id)
    return CampaignState(id=campaign_id, status=status)


@router.post("/{campaign_id}/abort", summary="Abort a campaign", responses=problems(404, 409))
async def abort_campaign(
    pool: DbPool, grant: Operator, campaign_id: CampaignNumber, body: Abort | None = None
) -> CampaignState:
    """Stop a campaign for good. Devices that were never sent to become SKIPPED; devices in progress may finish."""
    reason = body.reason if body else None
    status = await operations.abort_campaign(pool, grant.tenant_id, campaign_id, actor=grant.key_id, reason=reason)
    return CampaignState(id=campaign_id, status=status)


@router.post("/{campaign_id}/cancel", summary="Cancel a campaign", responses=problems(404, 409))
async def cancel_campaign(
    pool: DbPool, grant: Operator, campaign_id: CampaignNumber, body: Abort | None = None
) -> CampaignState:
    """Abort a campaign, and tell its devices in progress to stop.

    A device that can still stop reports FAILED with the code `CANCELLED`; another one carries on. Devices are told at
    least once, at most 1,000 a second. An aborted campaign can be cancelled too; cancelling again changes nothing.
    """
    reason = body.reason if body else None
    status = await operations.cancel_campaign(pool, grant.tenant_id, campaign_id, actor=grant.key_id, reason=reason)
    return CampaignState(id=campaign_id, status=status)


@router.post("/{campaign_id}/retry", summary="Retry failed devices", responses=problems(404, 409))
async def retry_campaign_devices(
    pool: DbPool,
    grant: Operator,
    campaign_id: CampaignNumber,
    reason: Annotated[Reason | None, Query(description="Only devices whose last attempt failed for this")] = None,
    code: Annotated[
        str | None, Query(pattern=CODE_PATTERN, description="Only devices whose last attempt failed with this code")
    ] = None,
) -> RetriedDevices:
    """Give FAILED devices of a running or paused campaign one more attempt each, also above `max_attempts`.

    Their device timeout begins again. A paused campaign stays paused, and sends the attempts when it is started.
    """
    done = await retry.retry_failed(pool, grant.tenant_id, campaign_id, actor=grant.key_id, which=Which(reason, code))
    return RetriedDevices(id=campaign_id, status=done.status, devices=done.devices)


@router.post("/{campaign_id}/waves/{name}/promote", summary="Open a wave's gate", responses=problems(404, 409))
async def promote_wave(
    pool: DbPool,
    settings: ServerSettings,
    grant: Operator,
    campaign_id: CampaignNumber,
    name: WaveName,
    body: Promotion | None = None,
) -> CampaignState:
    """Open the gate of the present wave now, whatever it still waits for. A paused campaign stays paused.

    A gate that asks for an approval takes the role approver, and another key than the one that created the campaign or
    edited its policy last. Promoting the same wave again changes nothing.
    """
    status = await promote.promote_wave(
        pool,
        settings,
        grant.tenant_id,
        campaign_id,
        name,
        actor=grant.key_id,
        role=grant.role,
        reason=body.reason if body else None,
    )
    return CampaignState(id=campaign_id, status=status)


@router.get("/{campaign_id}/events", summary="Watch a campaign", responses=problems(404))
async def list_campaign_events(
    pool: DbPool,
    grant: Viewer,
    campaign_id: CampaignNumber,
    after: Annotated[int, Query(ge=0, le=MAX_BIGINT, description="Id of the last event you know")] = 0,
    limit: Limit = 100,
) -> EventList:
    """The events of the campaign and their reasons, oldest first."""
    found = await views.events(pool, grant.tenant_id, campaign_id, after=after, limit=limit)
    last = found[-1]["id"] if found else after
    return EventList.model_validate({"campaign_id": campaign_id, "events": found, "next_after": last})


@router.get("/{campaign_id}/waiting", summary="Why a campaign's devices wait", responses=problems(404))
async def get_campaign_waiting(
    pool: DbPool, settings: ServerSettings, grant: Viewer, campaign_id: CampaignNumber
) -> Waiting:
    """The gates that PENDING devices wait for. The same rules decide which devices are sent to."""
    found = await explain.waiting_devices(pool, settings, grant.tenant_id, campaign_id)
    reasons = [
        {
            "reason": each.verdict.gate,
            "devices": each.devices,
            "until": each.verdict.until,
            "detail": each.verdict.detail,
            "text": each.verdict.text,
        }
        for each in found.waiting
    ]
    return Waiting.model_validate(
        {"campaign_id": campaign_id, "as_of": found.as_of, "pending": found.pending, "waiting": reasons}
    )


@router.get(
    "/{campaign_id}/devices/{device_id}/explain", summary="Why a device is not sent to", responses=problems(404)
)
async def explain_campaign_device(
    pool: DbPool, settings: ServerSettings, grant: Viewer, campaign_id: CampaignNumber, device_id: DeviceName
) -> Explanation:
    """Every gate that applies to the device, open or closed, and the device's events. Once it ended: how it ended."""
    found = await explain.explain_device(pool, settings, grant.tenant_id, campaign_id, device_id)
    checks = [
        {"gate": each.gate, "open": each.open, "until": each.until, "text": each.text, "detail": each.detail}
        for each in found.checks
    ]
    return Explanation.model_validate(
        {
            "campaign_id": campaign_id,
            "device_id": device_id,
            "status": found.status,
            "attempt": found.attempt,
            "wave": found.wave,
            "may_go_now": found.may_go_now,
            "may_go_at": found.may_go_at,
            "checks": checks,
            "history": found.history,
        }
    )
