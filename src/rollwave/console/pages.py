"""Renders the templates: every page gets the theme, the session, the rights of its key and the form token."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from rollwave.console import csrf, formats, links, static_files
from rollwave.console.addresses import LOGIN, here, page_of
from rollwave.console.session import VISITOR, Session, drop_cookie, keeper, set_cookie
from rollwave.domain.role import Role
from rollwave.store import brakes

THEMES = ("system", "light", "dark")
THEME = "rollwave_theme"
FLASH = "rollwave_flash"
_BRAKES_SHOWN = 3
_FLASH_SECONDS = timedelta(seconds=60)

NAVIGATION = (
    ("/console/campaigns", "Campaigns"),
    ("/console/devices", "Devices"),
    ("/console/groups", "Groups"),
    ("/console/firmware", "Firmware"),
    ("/console/brakes", "Brakes"),
    ("/console/quarantine", "Messages"),
    ("/console/keys", "Keys"),
    ("/console/system", "System"),
)


@dataclass(frozen=True, slots=True)
class Can:
    """What the key of a session may do. Templates show no button for what it may not."""

    viewer: bool
    operator: bool
    approver: bool
    admin: bool

    @classmethod
    def of(cls, role: Role | None) -> Can:
        """The rights of a role; None: of a stranger."""
        return cls(*(role is not None and role.covers(each) for each in Role))


@cache
def environment() -> Environment:
    """The templates, each compiled once. Text is escaped, and a name that is not defined is an error."""
    made = Environment(
        loader=PackageLoader("rollwave.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"static": static_files.load().url, "t": formats, "links": links, "navigation": NAVIGATION}
    made.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "sort_keys": False}
    return made


def render(request: Request, template: str, values: Mapping[str, Any], *, block: str | None = None) -> str:
    """A template as text, without what a page needs: for parts of a page. ``block``: only this block of it."""
    templates: Environment = request.app.state.templates
    found = templates.get_template(template)
    if block is None:
        return found.render(values)
    return "".join(found.blocks[block](found.new_context(dict(values))))


async def page(
    request: Request,
    template: str,
    values: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    block: str | None = None,
) -> HTMLResponse:
    """A page, or one block of it. A pending flash line is shown once."""
    context = await _context(request)
    if block is None:
        context["brakes"] = await _brakes(request, context["session"])
    body = render(request, template, {**context, **(values or {})}, block=block)
    response = HTMLResponse(body, status, dict(headers or {}))
    if context["flash"]:
        drop_cookie(response, FLASH)
    visitor: str | None = getattr(request.state, "visitor", None)
    if visitor and request.cookies.get(VISITOR) != visitor:
        set_cookie(request, response, VISITOR, visitor, max_age=None)
    return response


async def done(request: Request, text: str, location: str | None = None) -> Response:
    """The answer to a form: go to ``location``, by default back to the form's page, and say there what was done."""
    response = RedirectResponse(location or page_of(request), 303)
    flash = (await keeper(request).sealed()).seal("flash", text[:1000])
    set_cookie(request, response, FLASH, flash, max_age=_FLASH_SECONDS)
    return response


async def _context(request: Request) -> dict[str, Any]:
    session: Session | None = getattr(request.state, "session", None)
    theme = request.cookies.get(THEME, THEMES[0])
    try:
        sealed = await keeper(request).sealed()
    except Exception:  # noqa: BLE001  the page that says that the database is unavailable has no form
        token, flash = "", None
    else:
        token, flash = (
            csrf.masked(sealed.token(csrf.nonce(request))),
            sealed.open("flash", request.cookies.get(FLASH), _FLASH_SECONDS),
        )
    path: str = request.scope["path"]
    return {
        "can": Can.of(session.role if session else None),
        "csrf_token": token,
        "flash": flash if isinstance(flash, str) else "",
        "here": here(request),
        "login": LOGIN,
        "path": path,
        "request_id": request.state.request_id,
        "section": "/".join(path.split("/")[:3]),
        "session": session,
        "theme": theme if theme in THEMES else THEMES[0],
        "themes": THEMES,
    }


async def _brakes(request: Request, session: Session | None) -> Sequence[Mapping[str, Any]]:
    """The halt and the freezes that every page says are in force."""
    if session is None:
        return ()
    try:
        return await brakes.in_force(request.app.state.pool, session.tenant_id, limit=_BRAKES_SHOWN)
    except Exception:  # noqa: BLE001  the page that says that the database is unavailable
        return ()


def slug(text: str) -> str:
    """``text`` as part of an element's id or a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
