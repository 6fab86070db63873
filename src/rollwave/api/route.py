"""Authenticates every customer request and limits its body, before the body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message

from rollwave.api.auth import NEEDED, authenticate
from rollwave.errors import InvalidInput
from rollwave.store.connecting import unavailable
from rollwave.store.outage import is_outage

MAX_BODY = 1024 * 1024
"""Maximum number of bytes in a request's body."""
_MAX_BODIES = {"put_device_group": 8 * 1024 * 1024, "add_to_group_import": 8 * 1024 * 1024}
"""The maximum of routes that accept more, in bytes, by the name of their function."""

_MAX_DRAINED = 64 * 1024 * 1024
_DRAIN_SECONDS = 5.0


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
            body = _Body(request, limit)
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


class _Body:
    """Receives a request's body, up to ``limit`` bytes."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._announced = request.headers.get("Content-Length", "")
        self._limit = limit
        self._size = 0
        self._complete = False

    def refuse_if_announced_too_large(self) -> None:
        if self._announced.isdecimal() and int(self._announced) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        message = await self._next()
        # A chunked body announces no length, so its bytes are counted.
        if self._size > self._limit:
            raise self._too_large()
        return message

    async def drain(self) -> None:
        """Continue to read for a while: otherwise a client that is still sending sees a reset instead of the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._complete and self._size < _MAX_DRAINED:
                    await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._limit // 1024} KiB")
