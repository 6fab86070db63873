"""What orchestrators and monitoring ask, without a key: alive? ready? how much of everything?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from rollwave.api import problems
from rollwave.api.application import Application
from rollwave.errors import RollwaveError
from rollwave.metrics import REGISTRY, ready
from rollwave.store import identity
from rollwave.store.database import Pool
from rollwave.store.migrate import require_current_schema
from rollwave.store.outage import in_words, is_outage
from rollwave.store.watched import trouble

Readiness: TypeAlias = Callable[[], Awaitable[dict[str, str]]]
"""Named checks; the value is ``ok``, or what is wrong in a few words that anybody may read."""

OK = "ok"
CHECK_SECONDS = 9.0
DATABASE_SECONDS = 3.0


class Health(BaseModel):
    """`status` is `ok` when every check is."""

    status: str = Field(examples=[OK])
    checks: dict[str, str] = Field(default_factory=dict, examples=[{"database": OK, "schema": OK, "broker": OK}])


ops_router = APIRouter(tags=["operations"])


@ops_router.get("/livez", summary="Is the process alive?")
async def livez() -> Health:
    """Answers as long as the process serves requests at all."""
    return Health(status=OK)


@ops_router.get(
    "/readyz",
    summary="Can the process do its work?",
    response_model=Health,
    responses={503: {"model": Health, "description": "A check is not `ok`"}},
)
async def readyz(request: Request) -> Response:
    """Checks the database, its schema, and what else this process needs."""
    checks = await _checks(request)
    all_ok = all(answer == OK for answer in checks.values())
    body = Health(status=OK if all_ok else "not ready", checks=checks)
    return JSONResponse(body.model_dump(), HTTPStatus.OK if all_ok else HTTPStatus.SERVICE_UNAVAILABLE)


@ops_router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters and gauges of this process, and what `/readyz` would answer."""
    try:
        checks = await _checks(request)
    except Exception:  # noqa: BLE001  /readyz raises it; the counters are wanted most when something is wrong
        checks = {"checks": "failed"}
    ready.clear()
    for name, answer in checks.items():
        ready.labels(name).set(answer == OK)
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _checks(request: Request) -> dict[str, str]:
    readiness: Readiness = request.app.state.readiness
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await readiness()
    except TimeoutError:
        return {"checks": f"no answer within {CHECK_SECONDS:g} s"}


async def database_checks(pool: Pool) -> dict[str, str]:
    """Whether the database answers, has the schema that this program expects, and is its installation's own."""
    if known := trouble(pool):
        return {"database": known}
    try:
        async with asyncio.timeout(DATABASE_SECONDS):
            await require_current_schema(pool)
            found = await identity.look(pool)
    except RollwaveError as error:
        return {"database": OK, "schema": str(error)}
    except Exception as error:
        if is_outage(error):
            return {"database": trouble(pool) or in_words(error)}
        raise
    return {"database": OK, "schema": OK, "identity": OK if found.standing.decided else found.in_short()}


def create_ops_app(readiness: Readiness) -> FastAPI:
    """The routes of this module alone, for a process that serves nothing else."""
    app = Application(title="Rollwave operations", docs_url=None, redoc_url=None)
    app.state.readiness = readiness
    app.include_router(ops_router)
    problems.install(app)
    return app
