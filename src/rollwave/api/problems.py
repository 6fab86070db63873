"""Answers every error with a problem document (RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from rollwave.api.fields import RULES
from rollwave.domain.policy.document.problems import InvalidPolicy
from rollwave.errors import (
    BrokerUnavailable,
    Conflict,
    DatabaseUnavailable,
    Forbidden,
    InvalidInput,
    NotFound,
    Outdated,
    RollwaveError,
    SchemaMismatch,
)
from rollwave.log import get_logger
from rollwave.store.labels import LabelsUnavailable
from rollwave.store.outage import FOREIGN_TEXT, ValueRefused

_log = get_logger("api")

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""Maximum number of mistakes that are listed for one request."""
RETRY_AFTER = "5"
"""Seconds after which a client should try again while the database is unavailable."""

_STATUS: Mapping[type[RollwaveError], HTTPStatus] = {
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    LabelsUnavailable: HTTPStatus.CONFLICT,
    Outdated: HTTPStatus.PRECONDITION_FAILED,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    ValueRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SchemaMismatch: HTTPStatus.SERVICE_UNAVAILABLE,
    BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

_SLUGS: Mapping[int, str] = {
    400: "malformed-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    412: "outdated",
    413: "body-too-large",
    415: "unsupported-media-type",
    422: "invalid-input",
    429: "too-many-requests",
    500: "internal-error",
    503: "unavailable",
}


class FieldError(BaseModel):
    """One mistake in a request."""

    location: str = Field(examples=["body"], description="body, path, query or header")
    field: str = Field(examples=["rollout_rate"], description="Dotted path within the location")
    detail: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """What went wrong (RFC 9457). `type` is stable: programs may rely on it."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["/problems/conflict"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str | None = Field(None, examples=["Cannot start campaign 7: it is ABORTED."])
    hint: str | None = Field(None, description="What to do next")
    errors: list[FieldError] | None = Field(None, description=f"The first {MAX_ERRORS} mistakes of the request")


def problem(
    status: int,
    detail: str | None = None,
    *,
    hint: str | None = None,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem document as a response. Fields that are None are left out."""
    body = Problem(
        type=f"/problems/{_SLUGS[status]}" if status in _SLUGS else "about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail or None,
        hint=hint or None,
        errors=errors,
    )
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def status_of(error: RollwaveError) -> HTTPStatus:
    """The HTTP status that answers an error of ours."""
    kinds = (_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    return next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document."""
    app.add_exception_handler(RollwaveError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for each in FOREIGN_TEXT:
        app.add_exception_handler(each, _foreign_text)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RollwaveError)
    status = status_of(error)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem(status, _printable(str(error)), hint=error.hint, errors=_named(request, error))
    # Addresses of servers, and hints for the operator, are logged and not sent to the caller.
    _log.warning("api_request_failed", status=status.value, error=str(error))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return problem(status, "a service that this one needs is unavailable", headers={"Retry-After": RETRY_AFTER})
    return problem(status)


def _named(request: Request, error: RollwaveError) -> list[FieldError] | None:
    if isinstance(error, InvalidPolicy):
        in_body = "policy." if request.method == "POST" else ""  # elsewhere the body is the document
        return [
            FieldError(location="body", field=f"{in_body}{each.where}".rstrip("."), detail=_printable(each.placed))
            for each in error.problems
        ]
    if not isinstance(error, InvalidInput) or not error.field:
        return None
    places = (("path", request.path_params), ("query", request.query_params))
    location = next((name for name, values in places if error.field in values), "body")
    return [FieldError(location=location, field=error.field, detail=_printable(error.fault))]


_BYTES = re.compile(r"0x[0-9a-f]{2}(?: 0x[0-9a-f]{2})*")
"""The bytes of the character in PostgreSQL's error message, which has this form in every language."""


async def _foreign_text(request: Request, error: Exception) -> JSONResponse:
    """Answer for a character that the database's encoding lacks: nothing stored has it, and nothing can store it."""
    found = _BYTES.search(str(error))
    character = bytes.fromhex(found[0].replace("0x", "")).decode(errors="replace") if found else ""
    detail = _printable(f"the database cannot hold this text: {error.args[0]}")
    given = {"path": request.path_params, "query": request.query_params}
    errors = [
        FieldError(location=location, field=field, detail=detail)
        for location, values in given.items()
        for field, value in values.items()
        if character and character in str(value)
    ]
    if request.method != "POST" and any(each.location == "path" for each in errors):
        return problem(HTTPStatus.NOT_FOUND, detail)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors or None)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    errors = [_field_error(each) for each in found[:MAX_ERRORS]]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{errors[0].field or errors[0].location}: {errors[0].detail}{more}"
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    # The input is not echoed: it may be huge, secret, or no valid text.
    location, *path = [_printable(str(part)) for part in error["loc"]]
    detail = RULES.get(error.get("ctx", {}).get("pattern", ""), error["msg"])
    return FieldError(location=location, field=".".join(path), detail=_printable(detail))


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:500]


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    generic = error.detail == HTTPStatus(error.status_code).phrase
    return problem(error.status_code, None if generic else error.detail, headers=headers)


def _allowed_methods(request: Request) -> set[str]:
    """The methods of all routes with this path. The router itself knows those of the first one only."""
    allowed: set[str] = set()
    for method in ("DELETE", "GET", "POST", "PUT"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            allowed |= {"GET", "HEAD"} if method == "GET" else {method}
    return allowed


async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR)
