"""Creates the HTTP application from its routes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from rollwave.api import problems
from rollwave.api.application import Application
from rollwave.api.ops import Readiness, ops_router
from rollwave.api.policy_body import describe_policies
from rollwave.api.routes import brakes, campaigns, firmware, imports, overview, policies, registry, segments
from rollwave.engine.worker.readiness import database
from rollwave.settings import Settings
from rollwave.store.database import Pool

PREFIX = "/api/v1"

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
        generate_unique_id_function=_operation_id,
    )
    app.state.pool = pool
    app.state.settings = settings
    app.state.readiness = checks
    app.include_router(ops_router)
    app.include_router(policies.schemas, prefix=PREFIX)
    for each in (firmware, campaigns, overview, policies, segments, brakes, registry, imports):
        app.include_router(each.router, prefix=PREFIX)
        app.include_router(each.router, include_in_schema=False)  # as older hosts call them
    problems.install(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
