"""Routes for orchestrators and monitoring, without a key: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import BaseModel, Field

from rollwave.api import problems
from rollwave.api.application import Application
from rollwave.engine.worker import readiness
from rollwave.engine.worker.readiness import OK
from rollwave.metrics import join

Readiness: TypeAlias = Callable[[], Awaitable[dict[str, str]]]
"""Checks by name. The value is ``ok``, or a short description of the problem without secrets."""


class Health(BaseModel):
    """The result of each check. `status` is `ok` if every check is `ok`."""

    status: str = Field(examples=[OK])
    checks: dict[str, str] = Field(default_factory=dict, examples=[{"database": OK, "schema": OK, "broker": OK}])


ops_router = APIRouter(tags=["operations"])


@ops_router.get("/livez", summary="Is the process alive?")
async def livez() -> Health:
    """Answers while the process serves requests."""
    return Health(status=OK)


@ops_router.get(
    "/readyz",
    summary="Can the process do its work?",
    response_model=Health,
    responses={503: {"model": Health, "description": "A check is not `ok`"}},
)
async def readyz(request: Request) -> Response:
    """Checks the database, its schema, and whatever else this process needs."""
    answer = await _ask(request)
    return JSONResponse(answer, HTTPStatus.OK if answer["status"] == OK else HTTPStatus.SERVICE_UNAVAILABLE)


@ops_router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counters and gauges of this process, and the result of `/readyz`."""
    join(REGISTRY)
    try:
        await _ask(request)
    except Exception:  # noqa: BLE001  /readyz raises it; the counters are needed most when a check fails
        readiness.verdict({"checks": "failed"})
    return Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _ask(request: Request) -> readiness.Readiness:
    ask: Readiness = request.app.state.readiness
    try:
        async with asyncio.timeout(readiness.CHECK_SECONDS):
            return readiness.verdict(await ask())
    except TimeoutError:
        return readiness.verdict(readiness.too_slow())


def create_ops_app(ask: Readiness) -> FastAPI:
    """Create an application with the routes of this module only, for a process that serves nothing else."""
    app = Application(title="Rollwave operations", docs_url=None, redoc_url=None)
    app.state.readiness = ask
    app.include_router(ops_router)
    problems.install(app)
    return app
