"""API keys of the tenant."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path

from rollwave.api.auth import Admin
from rollwave.api.parameters import DbPool, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.keys import ApiKey, ApiKeyIn, ApiKeyList, CreatedApiKey
from rollwave.store import access

router = APIRouter(prefix="/customer", tags=["keys"], route_class=CustomerRoute)

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="Id of a key, which is not secret")]


@router.get("/api-keys", summary="List API keys", responses=problems())
async def list_api_keys(pool: DbPool, grant: Admin) -> ApiKeyList:
    """The tenant's keys, also expired and revoked ones, without their secrets."""
    return ApiKeyList(
        api_keys=[ApiKey.model_validate(asdict(each)) for each in await access.list_keys(pool, grant.tenant_id)]
    )


@router.post("/api-keys", status_code=201, summary="Create an API key", responses=problems(409))
async def create_api_key(pool: DbPool, grant: Admin, body: ApiKeyIn) -> CreatedApiKey:
    """Create a key. The answer is the only place that shows it."""
    expires_in = None if body.expires_in_days is None else timedelta(days=body.expires_in_days)
    key = await access.create(pool, grant.tenant_id, body.role, name=body.name or "", expires_in=expires_in)
    return CreatedApiKey(key_id=access.key_id_of(key), key=key)


@router.post(
    "/api-keys/{key_id}/revoke",
    status_code=204,
    response_model=None,
    summary="Revoke an API key",
    responses=problems(404),
)
async def revoke_api_key(pool: DbPool, grant: Admin, key_id: KeyId) -> None:
    """Revoke a key. It stops working immediately. Revoking it again changes nothing."""
    await access.revoke(pool, grant.tenant_id, key_id)
