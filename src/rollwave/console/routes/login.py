"""Log in with an API key, log out, and switch the theme."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from rollwave.api.parameters import DbPool
from rollwave.console import throttle
from rollwave.console.addresses import LOGIN, page_of, safe_next
from rollwave.console.pages import THEME, THEMES, page
from rollwave.console.route import OpenRoute
from rollwave.console.session import COOKIE, drop_cookie, keeper, of_link, set_cookie
from rollwave.store import access

router = APIRouter(route_class=OpenRoute)

_YEAR = timedelta(days=365)


@router.get("/login")
async def login_page(request: Request, next: str = "", expired: str = "", link: str = "") -> Response:  # noqa: A002
    """The form; with the token of a login link, a new session and the way to ``next``."""
    if link:
        grant = await of_link(request, link)
        if grant is None:
            return await _form(request, next, "This link is not valid any more.", status=403)
        response = RedirectResponse(safe_next(next), 303)
        await keeper(request).begin(request, response, grant)
        return response
    if request.state.session is not None:
        return RedirectResponse(safe_next(next), 303)
    return await _form(request, next, "You are signed out: the session or its key has ended." if expired else "")


@router.post("/login")
async def log_in(
    request: Request,
    pool: DbPool,
    key: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",  # noqa: A002
) -> Response:
    """Begin a session with an API key."""
    grant = await access.verify(pool, key.strip())
    if grant is None:
        return await _wrong(request, next)
    response = RedirectResponse(safe_next(next), 303)
    await keeper(request).begin(request, response, grant)
    return response


async def _wrong(request: Request, following: str) -> Response:
    attempts: throttle.Throttle = request.app.state.login_attempts
    address = request.client.host if request.client else ""
    wait = attempts.wait(address)
    if wait:
        text = f"This key is unknown, expired or revoked, as many from your address were. Try again in {wait} s."
        return await _form(request, following, text, status=429, headers={"Retry-After": str(wait)})
    attempts.failed(address)
    return await _form(request, following, "This key is unknown, expired or revoked.", status=403)


async def _form(
    request: Request, following: str, text: str, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    request.state.session = None
    values = {"next": safe_next(following), "text": text}
    return await page(request, "login.html", values, status=status, headers=headers)


@router.post("/logout")
async def log_out() -> Response:
    """End the session of this browser."""
    response = RedirectResponse(LOGIN, 303)
    drop_cookie(response, COOKIE)
    return response


@router.post("/theme")
async def set_theme(request: Request, theme: Annotated[str, Form()] = THEMES[0]) -> Response:
    """Choose light, dark, or as the system does."""
    response = RedirectResponse(page_of(request), 303)
    set_cookie(request, response, THEME, theme if theme in THEMES else THEMES[0], max_age=_YEAR)
    return response
