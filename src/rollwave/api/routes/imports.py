"""Importing a large device group in parts."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Response

from rollwave.api.auth import Operator
from rollwave.api.parameters import DbPool, GroupName, ImportNumber, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.routes.registry import described
from rollwave.api.schemas.registry import GroupChange, GroupImport, ImportPart
from rollwave.domain.ids import in_path
from rollwave.store import imports

router = APIRouter(prefix="/customer/device-groups/{group_id}/imports", tags=["registry"], route_class=CustomerRoute)


@router.post("", status_code=201, summary="Begin an import into a group", responses=problems(409))
async def begin_group_import(pool: DbPool, grant: Operator, group_id: GroupName, response: Response) -> GroupImport:
    """For more devices than one request takes: begin, add the devices in parts, then apply.

    The group stays as it is until the import is applied. An import is forgotten an hour after its last part.
    """
    row = await imports.begin(pool, grant.tenant_id, group_id, actor=grant.key_id)
    response.headers["Location"] = f"/api/v1/customer/device-groups/{in_path(group_id)}/imports/{row['import_id']}"
    return GroupImport.model_validate(row)


@router.post("/{import_id}/devices", summary="Add devices to an import", responses=problems(404, 409))
async def add_to_group_import(
    pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber, body: ImportPart
) -> GroupImport:
    """Add up to 10,000 devices of either kind, in a body of up to 8 MiB; 1,000,000 in all.

    Adding the same devices again changes nothing: a request that was not answered may be repeated.
    """
    row = await imports.add(pool, grant.tenant_id, group_id, import_id, body.device_ids, described(body.devices))
    return GroupImport.model_validate(row)


@router.post("/{import_id}/apply", summary="Apply an import", responses=problems(404, 409))
async def apply_group_import(
    pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber
) -> GroupChange:
    """Make the import's devices the group's members: all of them, and no other, in one transaction.

    Applying it again answers the same and changes nothing. Campaigns that exist keep their devices.
    """
    changed = await imports.apply(pool, grant.tenant_id, group_id, import_id)
    return GroupChange(group_id=group_id, **asdict(changed))


@router.delete(
    "/{import_id}", status_code=204, response_model=None, summary="Cancel an import", responses=problems(404, 409)
)
async def cancel_group_import(pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber) -> None:
    """Forget an import that was not applied. The group stays as it is."""
    await imports.cancel(pool, grant.tenant_id, group_id, import_id)
