"""Authentication: the API key names the tenant, and its role determines the routes that it may use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from rollwave.domain.role import Role
from rollwave.store.access import Grant, verify

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="`rollwave apikey create --tenant T --role operator` prints a key.",
)


async def authenticate(request: Request) -> Grant:
    """Look up the tenant and role of the request's key.

    Raises:
        HTTPException: 401 if there is no key, or it is unknown, expired or revoked.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    grant = await verify(request.app.state.pool, key.strip()) if scheme.lower() == "bearer" else None
    if grant is None:
        raise HTTPException(
            401,
            "Requires a valid API key: Authorization: Bearer rollwave.…",
            {"WWW-Authenticate": "Bearer"},
        )
    return grant


# The credentials are a parameter for the OpenAPI document only: the route authenticates before it reads the body.
def _granted(request: Request, _key: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]) -> Grant:
    grant: Grant = request.state.grant
    return grant


def _viewer(grant: Annotated[Grant, Depends(_granted)]) -> Grant:
    return _require(grant, Role.VIEWER)


def _operator(grant: Annotated[Grant, Depends(_granted)]) -> Grant:
    return _require(grant, Role.OPERATOR)


def _admin(grant: Annotated[Grant, Depends(_granted)]) -> Grant:
    return _require(grant, Role.ADMIN)


def _require(grant: Grant, needed: Role) -> Grant:
    if not grant.role.covers(needed):
        raise HTTPException(403, f"Requires role {needed}; this key has role {grant.role}.")
    return grant


Viewer = Annotated[Grant, Depends(_viewer)]
"""Parameter of a route that reads."""
Operator = Annotated[Grant, Depends(_operator)]
"""Parameter of a route that changes something."""
Admin = Annotated[Grant, Depends(_admin)]
"""Parameter of a route for the keys of the tenant."""

NEEDED: Mapping[object, Role] = MappingProxyType({_viewer: Role.VIEWER, _operator: Role.OPERATOR, _admin: Role.ADMIN})
"""The role that a route needs, by the function that gives it its grant."""
