"""Brakes: halt all sending and lift the halt, add and remove freezes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool, ServerSettings
from rollwave.api.schemas.brakes import FreezeIn, HaltIn
from rollwave.console import forms, links
from rollwave.console.addresses import HOME, page_of
from rollwave.console.pages import done, page
from rollwave.console.policy_form import moment
from rollwave.console.rights import Operator, Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.errors import Conflict, InvalidInput
from rollwave.settings import Settings
from rollwave.store import brakes
from rollwave.store.database import Pool

router = APIRouter(route_class=ConsoleRoute)

ROWS = 100
CHANGES = 10
"""The last changes that the page shows."""
ADDRESS = "/console/brakes"


@router.get("/brakes")
async def brakes_page(
    request: Request, pool: DbPool, settings: ServerSettings, session: Viewer, cursor: str | None = None
) -> Response:
    """The halt, and a page of the freezes."""
    return await _page(request, pool, settings, session, cursor=cursor)


async def _page(
    request: Request,
    pool: Pool,
    settings: Settings,
    session: Session,
    *,
    cursor: str | None = None,
    given: forms.Fields | None = None,
    wrong: forms.Messages | None = None,
    status: int = 200,
) -> Response:
    found = await brakes.freezes(pool, session.tenant_id, limit=ROWS, cursor=cursor)
    values: dict[str, Any] = {
        "halt": await brakes.halt_of(pool, session.tenant_id),
        "reach": await _reach(pool, settings, session),
        "freezes": found.rows,
        "changes": [] if cursor else await brakes.changes(pool, session.tenant_id, limit=CHANGES),
        "total": found.total,
        "first": ADDRESS if cursor else "",
        "next": links.with_query(ADDRESS, cursor=found.next_cursor) if found.next_cursor else "",
        "given": given or {},
        "wrong": wrong or {},
        "first_of": forms.first,
    }
    return await page(request, "brakes.html", values, status=status)


async def _reach(pool: Pool, settings: Settings, session: Session) -> brakes.Reach:
    return await brakes.reach(pool, session.tenant_id, tick_interval=settings.tick_interval)


@router.get("/brakes/halt")
async def ask_halt(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """The question before all sending is halted."""
    reach = await _reach(pool, settings, session)
    return await page(request, "confirm/halt.html", {"reach": reach, "reason": await _reason(pool, session)})


async def _reason(pool: Pool, session: Session) -> str:
    """What the field for the reason of a halt has in it, so that a halt needs no typing."""
    return f"Halted by {await brakes.name_of_key(pool, session.tenant_id, session.key_id)} at the console"


@router.post("/brakes/halt")
async def halt(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """Halt all sending of the tenant."""
    reason = forms.first(await forms.fields(request), "reason") or await _reason(pool, session)
    read = forms.check(HaltIn, {"reason": reason})
    if not isinstance(read, HaltIn):
        raise InvalidInput(read.get("reason", "cannot be read"), field="reason")
    before = await brakes.halt_of(pool, session.tenant_id)
    await brakes.halt(pool, session.tenant_id, actor=session.key_id, reason=read.reason)
    if before is not None:
        return await done(request, "All sending was halted already.", _back(request))
    reach = await _reach(pool, settings, session)
    return await done(
        request, f"Halted: nothing is sent in {_campaigns(reach)} until the halt is lifted.", _back(request)
    )


@router.get("/brakes/lift")
async def ask_lift(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """The question before the halt is lifted."""
    return await page(request, "confirm/lift.html", {"reach": await _reach(pool, settings, session)})


@router.post("/brakes/lift")
async def lift(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """Lift the halt of the tenant."""
    if not await brakes.lift(pool, session.tenant_id, actor=session.key_id):
        return await done(request, "Sending was not halted.", _back(request))
    reach = await _reach(pool, settings, session)
    return await done(request, f"The halt is lifted: {_campaigns(reach)} may send again.", _back(request))


def _back(request: Request) -> str:
    """The campaign's page if the question was asked there, else the page of the brakes."""
    asked_on = page_of(request)
    return asked_on if asked_on.startswith(f"{HOME}/") else ADDRESS


def _campaigns(reach: brakes.Reach) -> str:
    return f"{reach.campaigns:,} running campaign{'' if reach.campaigns == 1 else 's'}"


@router.post("/brakes/freezes")
async def add_freeze(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """Add a freeze, or say beside the field what is wrong."""
    given = await forms.fields(request)
    values = {name: forms.first(given, name) for name in ("name", "reason")}
    values |= {name: moment(forms.first(given, name)) for name in ("start", "end")}
    read = forms.check(FreezeIn, values)
    status = 422
    if isinstance(read, FreezeIn):
        try:
            await brakes.add_freeze(
                pool, session.tenant_id, read.name, read.start, read.end, actor=session.key_id, reason=read.reason
            )
        except (InvalidInput, Conflict) as error:
            wrong = forms.refused(error)
            if isinstance(error, Conflict):
                wrong, status = {"name": wrong[""]}, 409
        else:
            return await done(request, f"The freeze {read.name} is added.", ADDRESS)
    else:
        wrong = read
    return await _page(request, pool, settings, session, given=given, wrong=wrong, status=status)


@router.get("/brakes/freezes/{name}/remove")
async def ask_remove(request: Request, _session: Operator, name: str) -> Response:
    """The question before a freeze is removed."""
    return await page(request, "confirm/remove_freeze.html", {"name": name})


@router.post("/brakes/freezes/{name}/remove")
async def remove_freeze(request: Request, pool: DbPool, session: Operator, name: str) -> Response:
    """Remove a freeze."""
    await brakes.remove_freeze(pool, session.tenant_id, name, actor=session.key_id)
    return await done(request, f"The freeze {name} is removed.", ADDRESS)
