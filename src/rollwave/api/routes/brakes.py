"""Brakes: halt all sending of the tenant, and freeze it from one time to another."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from rollwave.api.auth import Operator, Viewer
from rollwave.api.fields import LongText
from rollwave.api.parameters import DbPool, Limit, TextCursor, problems
from rollwave.api.route import CustomerRoute
from rollwave.api.schemas.brakes import Freeze, FreezeIn, FreezeList, FreezeName, HaltIn, HaltState
from rollwave.store import brakes
from rollwave.store.brakes import Halt
from rollwave.store.moments import Document

router = APIRouter(prefix="/customer/ota", tags=["brakes"], route_class=CustomerRoute)

Why = Annotated[LongText | None, Query(description="Reason, for the audit row")]


@router.get("/halt", summary="Read the halt", responses=problems())
async def get_halt(pool: DbPool, grant: Viewer) -> HaltState:
    """Whether all sending of the tenant is halted, since when, by whom and why."""
    return _state(await brakes.halt_of(pool, grant.tenant_id))


@router.post("/halt", summary="Halt all sending", responses=problems(409))
async def halt(pool: DbPool, grant: Operator, body: HaltIn) -> HaltState:
    """Stop all sending of the tenant within a second, until the halt is lifted.

    Campaigns keep their status, reports still count, and deadlines stand still. Nothing ignores a halt. Halting again
    changes nothing, and answers with the first halt.
    """
    return _state(await brakes.halt(pool, grant.tenant_id, actor=grant.key_id, reason=body.reason))


@router.delete("/halt", summary="Lift the halt", responses=problems())
async def lift_halt(pool: DbPool, grant: Operator, reason: Why = None) -> HaltState:
    """Let the tenant send again. Lifting it again changes nothing."""
    await brakes.lift(pool, grant.tenant_id, actor=grant.key_id, reason=reason)
    return _state(await brakes.halt_of(pool, grant.tenant_id))


@router.get("/freezes", summary="List freezes", responses=problems())
async def list_freezes(pool: DbPool, grant: Viewer, limit: Limit = 100, cursor: TextCursor = None) -> FreezeList:
    """The tenant's freezes, also those that are over, ordered by name."""
    found = await brakes.freezes(pool, grant.tenant_id, limit=limit, cursor=cursor)
    rows = [_freeze(row) for row in found.rows]
    return FreezeList(freezes=rows, total=found.total, next_cursor=found.next_cursor)


@router.post("/freezes", status_code=201, summary="Add a freeze", responses=problems(409))
async def add_freeze(pool: DbPool, grant: Operator, body: FreezeIn, response: Response) -> Freeze:
    """Send nothing from one time to another, in any campaign of the tenant whose policy does not ignore freezes.

    Maximum: 100 freezes that are not over.
    """
    row = await brakes.add_freeze(
        pool, grant.tenant_id, body.name, body.start, body.end, actor=grant.key_id, reason=body.reason
    )
    response.headers["Location"] = f"/api/v1/customer/ota/freezes/{body.name}"
    return _freeze(row)


@router.delete(
    "/freezes/{name}", status_code=204, response_model=None, summary="Remove a freeze", responses=problems(404)
)
async def remove_freeze(
    pool: DbPool,
    grant: Operator,
    name: Annotated[FreezeName, Path(description="Name of a freeze")],
    reason: Why = None,
) -> None:
    """End a freeze now, or delete one that has not begun or is over."""
    await brakes.remove_freeze(pool, grant.tenant_id, name, actor=grant.key_id, reason=reason)


def _state(halt: Halt | None) -> HaltState:
    if halt is None:
        return HaltState(halted=False, since=None, by=None, by_name=None, reason=None)
    return HaltState(halted=True, since=halt.since, by=halt.by, by_name=halt.by_name, reason=halt.reason)


def _freeze(row: Document) -> Freeze:
    return Freeze.model_validate({**row, "start": row["starts_at"], "end": row["ends_at"]})
