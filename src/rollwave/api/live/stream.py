"""Sends server-sent events until the stream or the connection ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

from fastapi import Response
from starlette.types import Receive, Scope, Send

from rollwave.api.application import HEAD
from rollwave.api.live.channel import Subscription
from rollwave.store.connecting import unavailable
from rollwave.store.outage import is_outage

SEND_SECONDS = 30.0
"""A client that takes nothing for so long is dropped."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}


def event(name: str, data: object, *, identifier: str | None = None) -> bytes:
    """One event. ``data``: sent as JSON; a str is JSON already, in one line."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    lead = f"id: {identifier}\n" if identifier else ""
    return f"{lead}event: {name}\ndata: {text}\n\n".encode()


class EventStream(Response):
    """The answer to a request for events.

    Args:
        opens: opens the stream. Its errors are the answer to the request.
        events: the events of the open stream.
    """

    def __init__(
        self,
        opens: Callable[[], AbstractAsyncContextManager[Subscription]],
        events: Callable[[Subscription], AsyncGenerator[bytes]],
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["Content-Length"]
        self._opens = opens
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Ends with them, or when the client disconnects or does not read.

        Raises:
            DatabaseUnavailable: the stream cannot be opened.
        """
        try:
            async with self._opens() as stream:
                await self._until_gone(stream, scope, receive, send)
        except Exception as error:
            if is_outage(error):
                raise unavailable(error) from error
            raise

    async def _until_gone(self, stream: Subscription, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(stream, scope, send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            [error, _] = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(error, Exception) and not isinstance(error, OSError):  # OSError: the connection is closed
            raise error

    async def _send(self, stream: Subscription, scope: Scope, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if not scope.get(HEAD):
            # Spread, so that the clients of a server that was restarted do not come back at the same moment.
            await _send_part(send, f"retry: {random.randint(1000, 3000)}\n\n".encode())  # noqa: S311  no secret
            async with aclosing(self._events(stream)) as events:
                async for each in events:
                    await _send_part(send, each)
        await send({"type": "http.response.body", "body": b""})


async def _send_part(send: Send, body: bytes) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": True})
    except TimeoutError as error:
        raise ConnectionError("the client does not read") from error


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
