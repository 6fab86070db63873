"""Devices and device groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from rollwave.api.auth import Operator, Viewer
from rollwave.api.fields import Word
from rollwave.api.parameters import DbPool, DeviceName, DeviceType, GroupName, Limit, Select, TextCursor, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.registry import (
    Device,
    DeviceIn,
    DeviceList,
    GroupChange,
    GroupDetail,
    GroupIn,
    GroupList,
    MemberIn,
)
from rollwave.store import devices, selected_devices

RunsVersion = Annotated[Word | None, Query(description="Only devices that run this version, as they last said")]

router = APIRouter(prefix="/customer", tags=["registry"], route_class=CustomerRoute)


@router.get("/devices", summary="List devices", responses=problems(409))
async def list_devices(
    pool: DbPool,
    grant: Viewer,
    device_type: DeviceType = None,
    select: Select = None,
    version: RunsVersion = None,
    limit: Limit = 100,
    cursor: TextCursor = None,
) -> DeviceList:
    """The tenant's devices, ordered by id.

    A selector or a version that takes longer than 5 seconds is answered with 422. If the service that embeds Rollwave
    keeps the devices in a view `rollwave_devices`, `select` and `version` read that view, as campaigns do.
    """
    if select is None and version is None:
        found = await devices.find_devices(pool, grant.tenant_id, device_type=device_type, limit=limit, cursor=cursor)
    else:
        found = await selected_devices.find(
            pool,
            grant.tenant_id,
            select,
            device_type=device_type,
            version=version,
            limit=limit,
            cursor=cursor,
        )
    return DeviceList.model_validate({"devices": found.rows, "total": found.total, "next_cursor": found.next_cursor})


@router.get("/devices/{device_id}", summary="Read a device", responses=problems(404))
async def get_device(pool: DbPool, grant: Viewer, device_id: DeviceName) -> Device:
    """One device."""
    return Device.model_validate(await devices.get_device(pool, grant.tenant_id, device_id))


@router.put("/devices/{device_id}", summary="Register a device", responses=problems(409))
async def put_device(pool: DbPool, grant: Operator, device_id: DeviceName, body: DeviceIn | None = None) -> Device:
    """Register a device, or replace its type, attributes and fields.

    `version` is also what the device reports, or has updated to with success; left out, it stays.
    """
    given = body or DeviceIn()
    row = await devices.put_device(
        pool,
        grant.tenant_id,
        device_id,
        device_type=given.device_type,
        attributes=given.attributes,
        fields_beside=devices.Fields(given.time_zone, given.version, "version" not in given.model_fields_set),
    )
    return Device.model_validate(row)


@router.get("/device-groups", summary="List device groups", responses=problems())
async def list_device_groups(pool: DbPool, grant: Viewer, limit: Limit = 100, cursor: TextCursor = None) -> GroupList:
    """The tenant's device groups, ordered by id."""
    found = await devices.find_groups(pool, grant.tenant_id, limit=limit, cursor=cursor)
    return GroupList.model_validate(
        {"device_groups": found.rows, "total": found.total, "next_cursor": found.next_cursor}
    )


@router.get("/device-groups/{group_id}", summary="Read a device group", responses=problems(404))
async def get_device_group(
    pool: DbPool, grant: Viewer, group_id: GroupName, limit: Limit = 100, cursor: TextCursor = None
) -> GroupDetail:
    """A group and its members, ordered by device id."""
    row, members = await devices.get_group(pool, grant.tenant_id, group_id, limit=limit, cursor=cursor)
    device_ids = [member["device_id"] for member in members.rows]
    return GroupDetail.model_validate({**row, "device_ids": device_ids, "next_cursor": members.next_cursor})


@router.put("/device-groups/{group_id}", summary="Set a group's members", responses=problems(409))
async def put_device_group(pool: DbPool, grant: Operator, group_id: GroupName, body: GroupIn) -> GroupChange:
    """Replace the members of a group.

    Maximum: 100,000 devices, in a body of up to 8 MiB. For larger groups, use an import. Existing campaigns keep their
    devices.
    """
    changed = await devices.put_group(pool, grant.tenant_id, group_id, body.device_ids, described(body.devices))
    return GroupChange(group_id=group_id, **asdict(changed))


def described(members: Iterable[MemberIn]) -> dict[str, devices.Description]:
    """The types and attributes of the devices in a request, by device id."""
    return {each.device_id: devices.Description(each.device_type, each.attributes) for each in members}
