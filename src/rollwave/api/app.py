"""Creates the HTTP application from its routes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from rollwave.api import problems
from rollwave.api.application import Application
from rollwave.api.live.hub import Hub
from rollwave.api.live.news import Snapshot
from rollwave.api.ops import Readiness, ops_router
from rollwave.api.policy_body import describe_policies
from rollwave.api.routes import (
    brakes,
    campaign_devices,
    campaigns,
    causes,
    device_campaigns,
    field,
    firmware,
    imports,
    keys,
    live,
    overview,
    policies,
    quarantine,
    registry,
    search,
    segments,
    timeline,
)
from rollwave.api.schemas.overview import Overview
from rollwave.engine.causes import TopCauses
from rollwave.engine.field import Fields
from rollwave.engine.overview import overview as read_overview
from rollwave.engine.worker.readiness import database
from rollwave.settings import Settings
from rollwave.store.database import Pool

PREFIX = "/api/v1"

_ROUTES = (
    *(firmware, campaigns, overview, timeline, live, campaign_devices, causes, field, policies, segments, brakes),
    *(registry, device_campaigns, imports, search, keys, quarantine),
)

_DESCRIPTION = """
Firmware over the air: register firmware, group devices, create a campaign, start it, watch it.

The API key names the tenant. Objects of another tenant answer 404, as if they did not exist. Lists have
pages: to read the next page, pass the `next_cursor` of this one as `cursor`. Times are RFC 3339 in UTC. Errors are
problem documents (RFC 9457).
"""


class _Api(Application):
    def openapi(self) -> dict[str, Any]:
        """Generate the OpenAPI document once, with the schemas of the problems of all routes, and of policies."""
        if self.openapi_schema is None:
            document = super().openapi()
            problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"].update(problem.pop("$defs"), Problem=problem)
            describe_policies(document["components"]["schemas"])
        return self.openapi_schema or {}


def create_app(pool: Pool, settings: Settings, *, readiness: Readiness | None = None) -> FastAPI:
    """Create the API.

    ``pool`` is the database's. ``readiness`` adds checks to ``/readyz``, beside those of the database.
    """

    async def checks() -> dict[str, str]:
        return await database(pool) | (await readiness() if readiness else {})

    app = _Api(
        title="Rollwave",
        description=_DESCRIPTION,
        version=version("rollwave"),
        docs_url=None,  # these pages would load scripts from other servers
        redoc_url=None,
    )
    app.state.pool = pool
    app.state.settings = settings
    app.state.readiness = checks
    app.state.fields = Fields(pool)
    app.state.top_causes = TopCauses()
    app.state.hub = _hub(app)
    app.state.stopping.append(app.state.hub.close)
    app.router.routes.extend(_all.routes)
    problems.install(app)
    return app


def _hub(app: FastAPI) -> Hub:
    pool, settings = app.state.pool, app.state.settings

    async def snapshot(tenant_id: str, campaign_id: int) -> Snapshot:
        document = await read_overview(pool, settings, tenant_id, campaign_id, app.state.top_causes)
        return Snapshot.of(document, Overview.model_validate(document).model_dump_json())

    return Hub(pool, snapshot, app.state.fields.read)


def _operation_id(route: APIRoute) -> str:
    return route.name


def _routes() -> APIRouter:
    """All routes. Applications of a process share them: FastAPI works out what they need at their first request."""
    found = APIRouter(generate_unique_id_function=_operation_id)
    found.include_router(ops_router)
    found.include_router(policies.schemas, prefix=PREFIX)
    for each in _ROUTES:
        found.include_router(each.router, prefix=PREFIX)
        found.include_router(each.router, include_in_schema=False)  # as older hosts call them
    return found


_all = _routes()
