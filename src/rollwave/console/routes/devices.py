"""Devices: a list with filters, and one page for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool, RowCursor, ServerSettings
from rollwave.console import links
from rollwave.console.downloads import PAGE, Form, Reader, download
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.engine import explain
from rollwave.engine.explain import Explanation
from rollwave.errors import InvalidInput, NotFound
from rollwave.settings import Settings
from rollwave.store import device_campaigns, devices, firmware, selected_devices
from rollwave.store.database import Pool
from rollwave.store.page import Page

router = APIRouter(route_class=ConsoleRoute)

ROWS = 100
_COLUMNS = ("device_id", "device_type", "version", "time_zone", "last_seen", "attributes")
_SHOWN_GROUPS, _CAMPAIGNS = 50, 50
_EXPLAINED = 10
"""Maximum number of unfinished campaigns of a device that its page explains."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list is narrowed to. Empty: everything."""

    select: str = ""
    version: str = ""
    device_type: str = ""

    def __bool__(self) -> bool:
        return bool(self.select or self.version or self.device_type)

    def address(self, cursor: str | None = None, path: str = "/console/devices") -> str:
        """The address of this list, or of a page of it."""
        given = {"select": self.select, "version": self.version, "device_type": self.device_type}
        return links.with_query(path, **given, cursor=cursor)


@router.get("/devices")
async def device_list(
    request: Request,
    pool: DbPool,
    session: Viewer,
    select: str = "",
    version: str = "",
    device_type: str = "",
    cursor: str | None = None,
) -> Response:
    """A page of the devices that a selector, a version and a type choose, ordered by id."""
    chosen = Filter(select.strip(), version.strip(), device_type.strip())
    found, wrong = Page([], 0, None), ""
    try:
        found = await _find(pool, session.tenant_id, chosen, limit=ROWS, cursor=cursor)
    except InvalidInput as error:
        wrong = f"{error.fault} {error.hint}".strip()
    known = await firmware.find(pool, session.tenant_id, device_type=None, limit=ROWS)
    values = {
        "devices": found.rows,
        "total": found.total,
        "chosen": chosen,
        "wrong": wrong,
        "versions": sorted({row["version"] for row in known.rows if row["version"]}, reverse=True),
        "first": chosen.address() if cursor else "",
        "next": chosen.address(found.next_cursor) if found.next_cursor else "",
        "csv": chosen.address(path="/console/devices.csv"),
        "json": chosen.address(path="/console/devices.json"),
        "links": links,
    }
    return await page(request, "devices.html", values, status=422 if wrong else 200)


@router.get("/devices.csv")
async def devices_csv(
    pool: DbPool, session: Viewer, select: str = "", version: str = "", device_type: str = ""
) -> Response:
    """The list as CSV."""
    return await _download("csv", pool, session, Filter(select.strip(), version.strip(), device_type.strip()))


@router.get("/devices.json")
async def devices_json(
    pool: DbPool, session: Viewer, select: str = "", version: str = "", device_type: str = ""
) -> Response:
    """The list as JSON."""
    return await _download("json", pool, session, Filter(select.strip(), version.strip(), device_type.strip()))


async def _download(form: Form, pool: Pool, session: Session, chosen: Filter) -> Response:
    async def read(cursor: str | None) -> Page:
        return await _find(pool, session.tenant_id, chosen, limit=PAGE, cursor=cursor)

    parts = ("devices", chosen.version, chosen.device_type)
    return await download(form, parts, _COLUMNS, read, Reader(pool, session.grant), labels="attributes")


async def _find(pool: Pool, tenant_id: str, chosen: Filter, *, limit: int, cursor: str | None) -> Page:
    device_type = chosen.device_type or None
    if not chosen.select and not chosen.version:
        return await devices.find_devices(pool, tenant_id, device_type=device_type, limit=limit, cursor=cursor)
    return await selected_devices.find(
        pool,
        tenant_id,
        chosen.select or None,
        device_type=device_type,
        version=chosen.version or None,
        limit=limit,
        cursor=cursor,
    )


@router.get("/devices/{device_id}")
async def device_page(
    request: Request,
    pool: DbPool,
    settings: ServerSettings,
    session: Viewer,
    device_id: str,
    cursor: RowCursor = None,
) -> Response:
    """A device: what is known of it, its campaigns, and why it waits in those that run."""
    if "\0" in device_id:  # which PostgreSQL takes in no text
        raise NotFound("There is no such device.")
    tenant_id = session.tenant_id
    address = links.device(device_id)
    campaigns = await device_campaigns.find(pool, tenant_id, device_id, limit=_CAMPAIGNS, cursor=cursor)
    next_page = links.with_query(address, cursor=campaigns.next_cursor)
    explained = [] if cursor else await _explained(pool, settings, tenant_id, device_id, campaigns.rows)
    values = {
        "device_id": device_id,
        "device": await _registered(pool, tenant_id, device_id),
        "groups": await devices.groups_of(pool, tenant_id, device_id, limit=_SHOWN_GROUPS),
        "campaigns": campaigns.rows,
        "first": address if cursor else "",
        "next": next_page if campaigns.next_cursor else "",
        "explained": explained,
        "links": links,
    }
    return await page(request, "device.html", values)


async def _registered(pool: Pool, tenant_id: str, device_id: str) -> dict[str, Any] | None:
    try:
        return await devices.get_device(pool, tenant_id, device_id)
    except NotFound:  # a campaign may have a device that nobody registered
        return None


async def _explained(
    pool: Pool, settings: Settings, tenant_id: str, device_id: str, campaigns: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], Explanation]]:
    """The newest campaigns in which the device is not finished, explained, in the order in which they may go."""
    ended = {CampaignStatus.COMPLETED, CampaignStatus.ABORTED}
    going_on = [each for each in campaigns if each["status"] not in TERMINAL and each["campaign_status"] not in ended]
    explained = [
        (each, await explain.explain_device(pool, settings, tenant_id, each["campaign_id"], device_id))
        for each in going_on[:_EXPLAINED]
    ]
    return sorted(explained, key=lambda each: _turn(each[1]))


def _turn(found: Explanation) -> tuple[int, float]:
    """The place of a campaign in the order in which the campaigns of a device may go."""
    if found.status is not ExecutionStatus.PENDING:
        return 0, 0.0
    if found.may_go_now:
        return 1, 0.0
    known = [each.until.timestamp() for each in found.checks if not each.open and each.until is not None]
    return (2 if found.may_go_at is not None else 3), max(known, default=0.0)
