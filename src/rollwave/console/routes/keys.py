"""API keys of the tenant, for admins: list, create and revoke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool
from rollwave.api.schemas.keys import ApiKeyIn
from rollwave.console import forms
from rollwave.console.pages import done, page
from rollwave.console.rights import Admin
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.errors import NotFound
from rollwave.store import access
from rollwave.store.access import ApiKey
from rollwave.store.database import Pool

router = APIRouter(route_class=ConsoleRoute)

ADDRESS = "/console/keys"


@router.get("/keys")
async def key_list(request: Request, pool: DbPool, session: Admin) -> Response:
    """All keys, without their secrets."""
    return await _page(request, pool, session)


async def _page(
    request: Request,
    pool: Pool,
    session: Session,
    *,
    created: str = "",
    given: forms.Fields | None = None,
    wrong: forms.Messages | None = None,
    status: int = 200,
) -> Response:
    keys = await access.list_keys(pool, session.tenant_id)
    values = {
        "now": datetime.now(UTC),
        "keys": sorted(keys, key=lambda key: (key.revoked_at is not None, -key.created_at.timestamp())),
        "created": created,
        "given": given or {},
        "wrong": wrong or {},
        "first_of": forms.first,
    }
    return await page(request, "keys.html", values, status=status)


@router.post("/keys")
async def create_key(request: Request, pool: DbPool, session: Admin) -> Response:
    """Create a key, and show it. It is shown only now: the database has its hash."""
    given = await forms.fields(request)
    values = {"role": "role", "name": "name", "expires_in_days": "days"}
    read = forms.check(ApiKeyIn, {name: forms.first(given, field) for name, field in values.items()})
    if not isinstance(read, ApiKeyIn):
        wrong = {values.get(name, name): message for name, message in read.items()}
        return await _page(request, pool, session, given=given, wrong=wrong, status=422)
    expires_in = None if read.expires_in_days is None else timedelta(days=read.expires_in_days)
    key = await access.create(pool, session.tenant_id, read.role, name=read.name or "", expires_in=expires_in)
    return await _page(request, pool, session, created=key, status=201)


@router.get("/keys/{key_id}/revoke")
async def ask_revoke(request: Request, pool: DbPool, session: Admin, key_id: str) -> Response:
    """The question before a key is revoked."""
    return await page(request, "confirm/revoke_key.html", {"key": await _key(pool, session, key_id)})


@router.post("/keys/{key_id}/revoke")
async def revoke_key(request: Request, pool: DbPool, session: Admin, key_id: str) -> Response:
    """Revoke a key, with immediate effect."""
    key = await _key(pool, session, key_id)
    await access.revoke(pool, session.tenant_id, key.key_id)
    return await done(request, f"The key {key.key_id} is revoked.", ADDRESS)


async def _key(pool: Pool, session: Session, key_id: str) -> ApiKey:
    found = next((key for key in await access.list_keys(pool, session.tenant_id) if key.key_id == key_id), None)
    if found is None:
        raise NotFound("There is no such key.", hint="The list of keys has their ids.")
    return found
