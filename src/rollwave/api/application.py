"""The FastAPI application, with two rules for every route: HEAD and a trailing slash."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

HEAD = "rollwave.head"
"""The key in the scope of a HEAD request, which is handled as GET."""


class Application(FastAPI):
    """Answers HEAD as GET without the body, and a path with a trailing slash as the path without it.

    A redirect would work for GET only: many clients follow it with GET, without the body of a POST.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, redirect_slashes=False)
        self.state.stopping = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = _without_trailing_slash(scope)
            if scope["method"] == "HEAD":
                # A stream of events looks at the mark: nobody would read it, and it would not end.
                scope, send = {**scope, "method": "GET", HEAD: True}, _without_body(send)
        await super().__call__(scope, receive, send)


def _without_trailing_slash(scope: Scope) -> Scope:
    path: str = scope["path"]
    # Look at the path as it was sent: in the decoded path, an id that ends with %2F ends with a slash too.
    sent: bytes = scope.get("raw_path") or path.encode()
    if len(path) == 1 or not sent.endswith(b"/"):
        return scope
    return {**scope, "path": path[:-1], "raw_path": sent[:-1]}


def _without_body(send: Send) -> Send:
    async def head(message: Message) -> None:
        if message["type"] == "http.response.body":
            if message.get("more_body"):
                return
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return head
