"""Policies: of campaigns, and those that a tenant has stored."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from rollwave.api.auth import Operator, Viewer
from rollwave.api.fields import LongText
from rollwave.api.parameters import CampaignNumber, DbPool, Limit, ServerSettings, TextCursor, problems
from rollwave.api.policy_body import (
    AS_YAML,
    REQUEST,
    DryRun,
    Shape,
    advice_fields,
    form_of,
    preview_fields,
    yaml_response,
)
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.policies import (
    PolicyInForce,
    PolicyPreview,
    SavedPolicy,
    SavedStoredPolicy,
    StoredPolicy,
    StoredPolicyList,
)
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.fields import MAX_COUNT, MAX_NAME, NAME_PATTERN
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.schema import json_schema
from rollwave.domain.policy.presets import PRESETS
from rollwave.engine import policies, policy_advice
from rollwave.store import stored_policies

router = APIRouter(prefix="/customer/ota", tags=["policies"], route_class=CustomerRoute)
schemas = APIRouter(prefix="/schemas", tags=["policies"])

PolicyName = Annotated[
    str,
    Path(pattern=NAME_PATTERN, max_length=MAX_NAME, description="Name of a policy", examples=["night-windows"]),
]
IfMatch = Annotated[
    str | None, Header(pattern=r"^[\x20-\x7e]{1,1000}$", description="`ETag` of the policy that may be replaced")
]


@router.get(
    "/campaigns/{campaign_id}/policy",
    summary="Read a campaign's policy",
    response_model=PolicyInForce,
    responses={**problems(404, 409), 200: {"content": AS_YAML}},
)
async def get_campaign_policy(
    pool: DbPool,
    settings: ServerSettings,
    grant: Viewer,
    campaign_id: CampaignNumber,
    response: Response,
    shape: Shape = "json",
    revision: Annotated[
        int | None, Query(ge=1, le=MAX_COUNT, description="A revision; otherwise the one in force")
    ] = None,
) -> Any:
    """The document that the campaign follows. Without one, its flat columns are shown as a document."""
    found = await policies.read_policy(pool, settings, grant.tenant_id, campaign_id, revision=revision)
    if shape == "yaml":
        return yaml_response(found.data, {"ETag": found.etag})
    response.headers["ETag"] = found.etag
    return _in_force(found)


@router.put(
    "/campaigns/{campaign_id}/policy",
    summary="Replace a campaign's policy",
    openapi_extra=dict(REQUEST),
    responses=problems(404, 409, 412, 415),
)
async def put_campaign_policy(
    pool: DbPool,
    settings: ServerSettings,
    grant: Operator,
    campaign_id: CampaignNumber,
    request: Request,
    response: Response,
    reason: Annotated[LongText | None, Query(description="Why; kept with the revision")] = None,
    dry_run: DryRun = False,
    if_match: IfMatch = None,
) -> SavedPolicy | PolicyPreview:
    """Replace the document by a new revision, which is in force at the next claim.

    Waves are matched by name: those that have passed, and the current one, must stay, in order. A campaign with flat
    columns can take a document until it is started. To let a running campaign ignore freezes takes an approver.
    """
    edit = policies.Edit(await request.body(), form_of(request), reason, if_match)
    if dry_run:
        preview = await policies.preview_edit(pool, settings, grant.tenant_id, campaign_id, edit)
        return PolicyPreview.model_validate(preview_fields(preview))
    found = await policies.edit_policy(
        pool, settings, grant.tenant_id, campaign_id, edit, actor=grant.key_id, role=grant.role
    )
    response.headers["ETag"] = found.etag
    advice = await policy_advice.on_campaign(pool, grant.tenant_id, campaign_id)
    return SavedPolicy.model_validate(_in_force(found) | advice_fields(advice))


def _in_force(found: policies.PolicyInForce) -> dict[str, Any]:
    values = asdict(found)
    return {"policy": values.pop("data"), **values}


@router.get("/policies", summary="List policies", responses=problems())
async def list_policies(pool: DbPool, grant: Viewer, limit: Limit = 100, cursor: TextCursor = None) -> StoredPolicyList:
    """The policies that the tenant has stored, ordered by name, and the names of the presets."""
    found = await stored_policies.find(pool, grant.tenant_id, limit=limit, cursor=cursor)
    return StoredPolicyList.model_validate(
        {"policies": found.rows, "presets": list(PRESETS), "total": found.total, "next_cursor": found.next_cursor}
    )


@router.get(
    "/policies/{name}",
    summary="Read a policy",
    response_model=StoredPolicy,
    responses={**problems(404, 409), 200: {"content": AS_YAML}},
)
async def get_policy(pool: DbPool, grant: Viewer, name: PolicyName, shape: Shape = "json") -> Any:
    """A preset, or a policy that the tenant has stored."""
    found = await stored_policies.get(pool, grant.tenant_id, name)
    return yaml_response(to_data(found.document)) if shape == "yaml" else _stored(found)


@router.put("/policies/{name}", summary="Store a policy", openapi_extra=dict(REQUEST), responses=problems(409, 415))
async def put_policy(pool: DbPool, grant: Operator, name: PolicyName, request: Request) -> SavedStoredPolicy:
    """Store a policy under a name, or replace it. Campaigns that were created with it keep their own copy."""
    document = await asyncio.to_thread(parse, await request.body(), form_of(request))
    found = await stored_policies.put(pool, grant.tenant_id, name, document, actor=grant.key_id)
    advice = await policy_advice.on_document(pool, grant.tenant_id, document)
    return SavedStoredPolicy.model_validate(_stored(found) | advice_fields(advice))


@router.delete(
    "/policies/{name}", status_code=204, response_model=None, summary="Delete a policy", responses=problems(404, 409)
)
async def delete_policy(pool: DbPool, grant: Operator, name: PolicyName) -> None:
    """Delete a policy that the tenant has stored. Campaigns that were created with it keep their own copy."""
    await stored_policies.delete(pool, grant.tenant_id, name)


def _stored(found: stored_policies.StoredPolicy) -> dict[str, Any]:
    return {
        "name": found.name,
        "preset": found.name in PRESETS,
        "policy": to_data(found.document),
        "changed_at": found.changed_at,
        "changed_by": found.changed_by,
    }


@schemas.get("/policy", summary="JSON Schema of policies")
async def get_policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy document, for editors. It needs no API key."""
    return json_schema()
