"""The system: whether this process can do its work, versions, and settings without secrets."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from rollwave.api.parameters import DbPool, ServerSettings
from rollwave.console.pages import page
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.domain.role import Role
from rollwave.engine.worker import readiness
from rollwave.engine.worker.readiness import OK
from rollwave.errors import ConfigurationError, RollwaveError
from rollwave.settings import Settings
from rollwave.store import health
from rollwave.store.database import Pool
from rollwave.store.migrate import migrations

router = APIRouter(route_class=ConsoleRoute)

_HERE = frozenset({"api_url", "api_key"})
"""Settings of operators' commands, which a server does not use."""

_MEANING = {
    "database": "PostgreSQL answers",
    "schema": "It has the schema that this version needs",
    "identity": "It is the database that the installation belongs to",
    "broker": "The MQTT broker accepts commands",
    "reports": "A listener receives the reports of devices",
    "settings": "The settings can be read",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as the page shows it. ``own``: it was set, and is not the default."""

    variable: str
    value: str
    own: bool
    meaning: str


@router.get("/system")
async def system_page(request: Request, pool: DbPool, settings: ServerSettings, session: Viewer) -> Response:
    """The checks of ``/readyz`` and versions. What concerns other tenants only where there is no other one."""
    try:
        async with asyncio.timeout(readiness.CHECK_SECONDS):
            checks = await request.app.state.readiness()
    except TimeoutError:
        checks = readiness.too_slow()
    reached = checks.get("database") == OK
    alone = reached and await health.single_tenant(pool)
    values = {
        "alone": alone,
        "checks": [(name, text == OK, text, _MEANING.get(name, "")) for name, text in checks.items()],
        "ready": all(text == OK for text in checks.values()),
        "facts": await _facts(pool, settings, alone=alone) if reached else [],
        "settings": list(_settings(settings)) if alone and session.role is Role.ADMIN else None,
    }
    return await page(request, "system.html", values)


async def _facts(pool: Pool, settings: Settings, *, alone: bool) -> list[tuple[str, str]]:
    """What is known of the programs and the database, as pairs of name and text."""
    found = [("Rollwave", version("rollwave")), ("Python", platform.python_version())]
    try:
        before = time.time()
        theirs, after = await health.clock(pool), time.time()
        alive = await health.slots_alive(pool, settings.listener_slots)
        found += [
            ("PostgreSQL", (await health.server(pool)).text),
            ("Schema", f"{await health.schema_version(pool)} (this version needs {migrations()[-1].version})"),
            ("Installation", (await health.installation(pool)).name),
            ("Listener slots", f"{len(alive)} of {settings.listener_slots} have a listener"),
            ("Clock", _clock(before, theirs, after)),
        ]
        if alone:
            found.append(("Campaigns due", f"{await health.due_campaigns(pool)} need the engine now"))
    except RollwaveError as error:
        found.append(("Database", str(error)))
    return found


def _clock(before: float, theirs: float, after: float) -> str:
    apart = max(before - theirs, theirs - after, 0.0)
    return f"{apart:.0f} s apart from the database's" if apart >= 1 else "agrees with the database's"


def _settings(settings: Settings) -> Iterator[Setting]:
    for name, field in type(settings).model_fields.items():
        if name not in _HERE:
            try:
                value = getattr(settings, name)
            except ConfigurationError:
                yield Setting(field.alias or name, "cannot be read", True, field.description or "")
            else:
                yield Setting(field.alias or name, _shown(value), value != field.default, field.description or "")


def _shown(value: object) -> str:
    if value is None or value == "":
        return "not set"
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    return f"{value:g}" if isinstance(value, float) else str(value)
