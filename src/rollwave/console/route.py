"""Opens the session of every request to a page, and checks the token of every form, before the page's own code runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rollwave.api.body import LimitedBody
from rollwave.console import csrf
from rollwave.console.session import COOKIE, keeper
from rollwave.store.connecting import unavailable
from rollwave.store.outage import is_outage

MAX_BODY = 8 * 1024 * 1024
"""Maximum number of bytes in a form, also with a file of device ids."""
MAX_OPEN_BODY = 64 * 1024
"""The same for strangers, whose forms have a key and an address. Any number of them may send at the same time."""


class SignedOut(Exception):
    """The request has no valid session. ``expired``: it had one."""

    def __init__(self, *, expired: bool) -> None:
        super().__init__("signed out")
        self.expired = expired


class ConsoleRoute(APIRoute):
    """A page for people who have logged in, or a form of it.

    Strangers are sent to the login page. The database being unavailable is answered with 503.
    """

    open_to_strangers = False
    max_body = MAX_BODY

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(bare: Request) -> Response:
            body = LimitedBody(bare, self.max_body)
            request = Request(bare.scope, body.receive)
            try:
                body.refuse_if_announced_too_large()
                await self._open_session(request)
                if request.method != "GET":
                    await csrf.require(request)
                return await handle(request)
            except HTTPException as error:
                await body.drain()
                if error.status_code == HTTPStatus.BAD_REQUEST:
                    raise HTTPException(422, "The form cannot be read.") from error
                raise
            except Exception as error:
                if is_outage(error):
                    raise unavailable(error) from error
                raise

        return guarded

    async def _open_session(self, request: Request) -> None:
        request.state.session = await keeper(request).find(request)
        if request.state.session is None and not self.open_to_strangers:
            raise SignedOut(expired=COOKIE in request.cookies)


class OpenRoute(ConsoleRoute):
    """A page for strangers too, such as the login page."""

    open_to_strangers = True
    max_body = MAX_OPEN_BODY
