"""Firmware versions."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response

from rollwave.api.auth import Operator, Viewer
from rollwave.api.parameters import DbPool, DeviceType, FirmwareId, Limit, RowCursor, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.firmware import Firmware, FirmwareIn, FirmwareList
from rollwave.domain.firmware import read_checksum
from rollwave.store import firmware

router = APIRouter(prefix="/customer/firmware", tags=["firmware"], route_class=CustomerRoute)


@router.get("", summary="List firmware", responses=problems())
async def list_firmware(
    pool: DbPool,
    grant: Viewer,
    device_type: DeviceType = None,
    limit: Limit = 100,
    cursor: RowCursor = None,
) -> FirmwareList:
    """The tenant's firmware versions, newest first."""
    found = await firmware.find(pool, grant.tenant_id, device_type=device_type, limit=limit, cursor=cursor)
    return FirmwareList.model_validate(
        {"firmware_versions": found.rows, "total": found.total, "next_cursor": found.next_cursor}
    )


@router.post(
    "",
    status_code=201,
    response_description="The new row",
    summary="Register firmware",
    responses={200: {"model": Firmware, "description": "The existing row, with equal values"}, **problems(409)},
)
async def register_firmware(pool: DbPool, grant: Operator, body: FirmwareIn, response: Response) -> Firmware:
    """Register a firmware version. The artifact stays at `file_url`; the server does not download it.

    A version is unique for each device type (no type counts as one type). A repeated request with equal values returns
    the same row; with other values it is a conflict.
    """
    row, new = await firmware.register(
        pool,
        grant.tenant_id,
        version=body.version,
        file_url=body.file_url,
        checksum_sha256=read_checksum(body.checksum_sha256) or None,
        file_size_bytes=body.file_size_bytes,
        device_type=body.device_type,
        description=body.description,
        actor=grant.key_id,
    )
    if not new:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/api/v1/customer/firmware/{row['id']}"
    return Firmware.model_validate(row)


@router.get("/{firmware_id}", summary="Read firmware", responses=problems(404))
async def get_firmware(pool: DbPool, grant: Viewer, firmware_id: FirmwareId) -> Firmware:
    """One firmware version."""
    return Firmware.model_validate(await firmware.get(pool, grant.tenant_id, firmware_id))


@router.delete(
    "/{firmware_id}", status_code=204, response_model=None, summary="Delete firmware", responses=problems(404, 409)
)
async def delete_firmware(pool: DbPool, grant: Operator, firmware_id: FirmwareId) -> None:
    """Delete a firmware version that no campaign uses."""
    await firmware.delete(pool, grant.tenant_id, firmware_id)
