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
    """Replace the members of a group in several requests: begin, add the devices in parts, then apply.

    The group does not change until the import is applied. An import is deleted an hour after its last part.
    """
    row = await imports.begin(pool, grant.tenant_id, group_id, actor=grant.key_id)
    response.headers["Location"] = f"/api/v1/customer/device-groups/{in_path(group_id)}/imports/{row['import_id']}"
    return GroupImport.model_validate(row)


@router.post("/{import_id}/devices", summary="Add devices to an import", responses=problems(404, 409))
async def add_to_group_import(
    pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber, body: ImportPart
) -> GroupImport:
    """Add up to 10,000 ids and 10,000 devices, in a body of up to 8 MiB. Maximum for one import: 1,000,000.

    Adding the same devices again changes nothing, so a request without an answer may be repeated.
    """
    row = await imports.add(pool, grant.tenant_id, group_id, import_id, body.device_ids, described(body.devices))
    return GroupImport.model_validate(row)


@router.post("/{import_id}/apply", summary="Apply an import", responses=problems(404, 409))
async def apply_group_import(
    pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber
) -> GroupChange:
    """Replace the members of the group by the devices of the import, in one transaction.

    Applying an import again changes nothing and returns the same answer. Existing campaigns keep their devices.
    """
    changed = await imports.apply(pool, grant.tenant_id, group_id, import_id)
    return GroupChange(group_id=group_id, **asdict(changed))


@router.delete(
    "/{import_id}", status_code=204, response_model=None, summary="Cancel an import", responses=problems(404, 409)
)
async def cancel_group_import(pool: DbPool, grant: Operator, group_id: GroupName, import_id: ImportNumber) -> None:
    """Delete an import that has not been applied. The group does not change."""
    await imports.cancel(pool, grant.tenant_id, group_id, import_id)
