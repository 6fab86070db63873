"""Limits the body of a request while it is received."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message

_MAX_DRAINED = 64 * 1024 * 1024
_DRAIN_SECONDS = 5.0


class LimitedBody:
    """Receives a request's body, up to ``limit`` bytes; one byte more is an HTTPException with status 413."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._announced = request.headers.get("Content-Length", "")
        self._limit = limit
        self._size = 0
        self._complete = False

    def refuse_if_announced_too_large(self) -> None:
        """Refuse a body by its Content-Length, before it is read."""
        if self._announced.isdecimal() and int(self._announced) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part of the body."""
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
