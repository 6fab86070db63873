"""Mounts the console beside the API of the same process."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from rollwave.console import errors, static_files
from rollwave.console.addresses import HOME
from rollwave.console.campaign_list import CampaignLists
from rollwave.console.compression import Compressed
from rollwave.console.pages import environment
from rollwave.console.routes import (
    brakes,
    campaign,
    campaign_actions,
    campaigns,
    devices,
    firmware,
    groups,
    keys,
    live,
    login,
    new_campaign,
    quarantine,
    search,
    system,
)
from rollwave.console.security import SecurityHeaders
from rollwave.console.session import PATH, Keeper
from rollwave.console.throttle import Throttle
from rollwave.settings import Settings
from rollwave.store.database import Pool

ROUTES = (
    *(login, new_campaign, campaigns, live, campaign, campaign_actions),
    *(devices, groups, firmware, brakes, quarantine, keys, system, search),
)
"""The modules of the pages. Where two have routes for one path, the first one wins."""

_beside = APIRouter()
"""Routes of the host's application, outside the console.

FastAPI's caches keep the functions for the life of the process. Closures would keep their application with them.
"""


@_beside.get(PATH)
async def _to_campaigns() -> Response:
    return RedirectResponse(HOME, 303)


@_beside.get("/favicon.ico")
async def _favicon(request: Request) -> Response:
    return RedirectResponse(request.app.state.console.state.static_files.url("favicon.svg"), 302)


def install(app: FastAPI, pool: Pool, settings: Settings) -> FastAPI:
    """Mount the console at ``/console``, and return its own application, which is also ``app.state.console``."""
    console = create(pool, settings)
    app.state.console = console
    console.state.hub = app.state.hub
    console.state.fields = app.state.fields
    console.state.readiness = app.state.readiness
    app.include_router(_beside, include_in_schema=False)
    app.mount(PATH, SecurityHeaders(Compressed(console)))
    return console


def create(pool: Pool, settings: Settings) -> FastAPI:
    """The console's application. Its paths begin after ``/console``."""
    console = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    console.state.pool = pool
    console.state.settings = settings
    console.state.keeper = Keeper(pool)
    console.state.campaign_lists = CampaignLists(pool, settings)
    console.state.login_attempts = Throttle()
    console.state.static_files = static_files.load()
    console.state.templates = environment()
    for router in (static_files.router, *(each.router for each in ROUTES)):
        console.router.routes.extend(router.routes)
    errors.install(console)
    return console
