"""The page of a campaign, and what its scripts read."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from rollwave.api.fields import Cursor
from rollwave.api.live.hub import Hub
from rollwave.api.live.news import Snapshot
from rollwave.api.parameters import CampaignNumber, DbPool, ServerSettings
from rollwave.api.routes.campaign_devices import Code, FromVersion, LabelFilter, SegmentNumber, WaveNumber
from rollwave.api.routes.field import DeviceIndex, SharedFields, get_campaign_field
from rollwave.api.routes.timeline import campaign_timeline
from rollwave.console import device_table
from rollwave.console.device_table import DeviceFilter
from rollwave.console.downloads import PAGE, Form, Reader, download
from rollwave.console.live import stream_id, title
from rollwave.console.pages import Can, page, render
from rollwave.console.questions import called
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.document.emit import to_yaml
from rollwave.domain.policy.document.located import Plain
from rollwave.engine import policies
from rollwave.errors import Conflict
from rollwave.store import field
from rollwave.store.labels import LabelsUnavailable
from rollwave.store.page import Page

router = APIRouter(prefix="/campaigns/{campaign_id}", route_class=ConsoleRoute)

_COLUMNS = (
    *("device_id", "status", "progress_pct", "attempt", "error_code", "error_message"),
    *("started_at", "completed_at", "created_at"),
)


def _chosen(
    status: Annotated[ExecutionStatus | None, Query()] = None,
    code: Code = None,
    label: LabelFilter = None,
    from_version: FromVersion = None,
    wave: WaveNumber = None,
    segment: SegmentNumber = None,
) -> DeviceFilter:
    return DeviceFilter(status, code, tuple(label or ()), from_version, wave, segment)


Chosen = Annotated[DeviceFilter, Depends(_chosen)]
Fragment = Annotated[str | None, Header(alias="X-Fragment", max_length=20)]


@router.get("")
async def campaign_page(
    request: Request,
    pool: DbPool,
    session: Viewer,
    campaign_id: CampaignNumber,
    chosen: Chosen,
    cursor: Cursor | None = None,
    fragment: Fragment = None,
) -> Response:
    """The page; for its script, the device table alone."""
    hub: Hub = request.app.state.hub
    snapshot = await hub.read(session.tenant_id, campaign_id)
    try:
        devices = await device_table.read(pool, session.tenant_id, snapshot.document, chosen, cursor=cursor)
    except LabelsUnavailable as error:
        raise Conflict(str(error), hint="Correct the view; `rollwave doctor` checks it.") from error
    overview = snapshot.document
    if fragment == "devices":
        shown = {"overview": overview, "devices": devices, "can": Can.of(session.role)}
        return HTMLResponse(render(request, "panels/devices.html", shown))
    values = {
        "overview": overview,
        "devices": devices,
        "title": title(overview),
        "sequence": stream_id(snapshot, session.role),
        "final": is_still(snapshot),
    }
    return await page(request, "campaign.html", values)


def is_still(snapshot: Snapshot) -> bool:
    """Whether the campaign will not change any more: it has ended, and no device is in progress."""
    devices = snapshot.document["devices"]
    moving = devices["PENDING"] + devices["DOWNLOADING"] + devices["INSTALLING"]
    return snapshot.document["status"] in {"COMPLETED", "ABORTED"} and not moving


@router.get("/timeline")
async def timeline(pool: DbPool, settings: ServerSettings, session: Viewer, campaign_id: CampaignNumber) -> Response:
    """The series that the burn-up is drawn from."""
    found = await campaign_timeline(pool, settings, session.grant, campaign_id)
    return JSONResponse(found.model_dump(mode="json"))


@router.get("/field")
async def states(request: Request, fields: SharedFields, session: Viewer, campaign_id: CampaignNumber) -> Response:
    """A byte a device in the order of sending."""
    return await get_campaign_field(fields, session.grant, campaign_id, request)


@router.get("/field/{index}")
async def device_of_field(pool: DbPool, session: Viewer, campaign_id: CampaignNumber, index: DeviceIndex) -> Response:
    """The device under the cursor."""
    found = await field.device_at(pool, session.tenant_id, campaign_id, index)
    return JSONResponse({"device_id": found.device_id, "status": found.status})


@router.get("/devices.csv")
async def devices_csv(pool: DbPool, session: Viewer, campaign_id: CampaignNumber, chosen: Chosen) -> Response:
    """The devices as CSV."""
    return await _file("csv", pool, session, campaign_id, chosen)


@router.get("/devices.json")
async def devices_json(pool: DbPool, session: Viewer, campaign_id: CampaignNumber, chosen: Chosen) -> Response:
    """The devices as JSON."""
    return await _file("json", pool, session, campaign_id, chosen)


async def _file(form: Form, pool: DbPool, session: Session, campaign_id: int, chosen: DeviceFilter) -> Response:
    async def read(cursor: str | None) -> Page:
        return await device_table.pages(pool, session.tenant_id, campaign_id, chosen, limit=PAGE, cursor=cursor)

    parts = (f"campaign-{campaign_id}-devices", chosen.status or "")
    return await download(form, parts, _COLUMNS, read, Reader(pool, session.grant))


@router.get("/policy")
async def policy(
    request: Request, pool: DbPool, settings: ServerSettings, session: Viewer, campaign_id: CampaignNumber
) -> Response:
    """The policy in force, as YAML."""
    hub: Hub = request.app.state.hub
    snapshot = await hub.look(session.tenant_id, campaign_id)
    found = await policies.read_policy(pool, settings, session.tenant_id, campaign_id)
    values: dict[str, Any] = {
        "campaign_id": campaign_id,
        "name": called(snapshot.document),
        "policy": found,
        "text": to_yaml(cast(Plain, found.data)),
    }
    return await page(request, "campaign_policy.html", values)
