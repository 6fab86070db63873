"""Authenticates every customer request and limits its body, before the body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rollwave.api.auth import NEEDED, authenticate
from rollwave.api.body import LimitedBody
from rollwave.errors import InvalidInput
from rollwave.store.connecting import unavailable
from rollwave.store.outage import is_outage

MAX_BODY = 1024 * 1024
"""Maximum number of bytes in a request's body."""
_MAX_BODIES = {"put_device_group": 8 * 1024 * 1024, "add_to_group_import": 8 * 1024 * 1024}
"""The maximum of routes that accept more, in bytes, by the name of their function."""


class CustomerRoute(APIRoute):
    """Authenticates a request, limits its body, and answers 503 instead of 500 if the database is unavailable.

    The description of the route says which role it needs.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for each in self.dependant.dependencies:
            said = f"Requires the role {NEEDED[each.call]}, or a higher one." if each.call in NEEDED else ""
            if said not in self.description:  # a router that includes this route makes it again
                self.description = f"{self.description}\n\n{said}"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        limit = _MAX_BODIES.get(self.name, MAX_BODY)

        async def guarded(request: Request) -> Response:
            body = LimitedBody(request, limit)
            try:
                request.state.grant = await authenticate(request)
                _refuse_bytes(request)
                body.refuse_if_announced_too_large()
                return await handle(Request(request.scope, body.receive))
            except HTTPException as error:
                await body.drain()
                if error.status_code == HTTPStatus.BAD_REQUEST:
                    raise HTTPException(422, "the body is not valid JSON") from error
                raise
            except Exception as error:
                if is_outage(error):
                    raise unavailable(error) from error
                raise

        return guarded


def _refuse_bytes(request: Request) -> None:
    """Refuse a path that is not UTF-8: the server has replaced its bytes by U+FFFD, which may be part of an id."""
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("the path is not UTF-8", hint="Percent-encode the UTF-8 bytes of an id.") from error
