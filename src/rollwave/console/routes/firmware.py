"""Firmware: a list, and a form that registers a version."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool, RowCursor
from rollwave.api.schemas.firmware import FirmwareIn
from rollwave.console import forms, links
from rollwave.console.pages import done, page
from rollwave.console.rights import Operator, Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.domain.firmware import read_checksum
from rollwave.domain.ids import MAX_BIGINT
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.store import firmware
from rollwave.store.database import Pool
from rollwave.store.firmware import Registered

router = APIRouter(route_class=ConsoleRoute)

ROWS = 100
ADDRESS = "/console/firmware"


@router.get("/firmware")
async def firmware_list(
    request: Request, pool: DbPool, session: Viewer, device_type: str = "", cursor: RowCursor = None
) -> Response:
    """A page of the firmware versions, newest first."""
    device_type = device_type.strip()
    found = await firmware.find(pool, session.tenant_id, device_type=device_type or None, limit=ROWS, cursor=cursor)
    next_page = links.with_query(ADDRESS, device_type=device_type, cursor=found.next_cursor)
    values = {
        "rows": found.rows,
        "total": found.total,
        "device_type": device_type,
        "first": links.with_query(ADDRESS, device_type=device_type) if cursor else "",
        "next": next_page if found.next_cursor else "",
    }
    return await page(request, "firmware.html", values)


@router.get("/firmware/new")
async def new_firmware(request: Request, _session: Operator) -> Response:
    """The form that registers a version."""
    return await page(request, "firmware_new.html", {"given": {}, "wrong": {}, "first_of": forms.first})


@router.post("/firmware/new")
async def register_firmware(request: Request, pool: DbPool, session: Operator) -> Response:
    """Register a version, or say beside the field what is wrong."""
    given = await forms.fields(request)
    read = forms.check(FirmwareIn, {name: forms.first(given, name) for name in FirmwareIn.model_fields})
    status = 422
    if isinstance(read, FirmwareIn):
        try:
            row, is_new = await _register(pool, session.tenant_id, read, session.key_id)
        except (InvalidInput, Conflict) as error:
            wrong = forms.refused(error)
            status = 409 if isinstance(error, Conflict) else 422
        else:
            said = "is registered" if is_new else "was registered already, with the same values"
            return await done(request, f"Firmware {row['version']} {said}.", ADDRESS)
    else:
        wrong = read
    return await page(
        request, "firmware_new.html", {"given": given, "wrong": wrong, "first_of": forms.first}, status=status
    )


async def _register(pool: Pool, tenant_id: str, given: FirmwareIn, actor: str) -> Registered:
    values = given.model_dump() | {"checksum_sha256": read_checksum(given.checksum_sha256)}
    return await firmware.register(pool, tenant_id, actor=actor, **values)


@router.get("/firmware/{firmware_id}/delete")
async def ask_delete(request: Request, pool: DbPool, session: Operator, firmware_id: int) -> Response:
    """The question before a version is deleted."""
    row = await firmware.get(pool, session.tenant_id, _row_id(firmware_id))
    return await page(request, "confirm/delete_firmware.html", {"row": row})


@router.post("/firmware/{firmware_id}/delete")
async def delete(request: Request, pool: DbPool, session: Operator, firmware_id: int) -> Response:
    """Delete a version that no campaign uses."""
    row = await firmware.get(pool, session.tenant_id, _row_id(firmware_id))
    await firmware.delete(pool, session.tenant_id, firmware_id)
    return await done(request, f"Firmware {row['version']} is deleted.", ADDRESS)


def _row_id(number: int) -> int:
    if not 1 <= number <= MAX_BIGINT:
        raise NotFound("There is no such firmware.")
    return number
