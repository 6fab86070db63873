"""Everything that a Rollwave installation is made of, started in order and stopped in reverse."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from rollwave.demo.artifact import ArtifactServer
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker, free_port
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.embedded.process import ServerProcess
from rollwave.errors import RollwaveError
from rollwave.store import access
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate

TENANT = "demo"
TICK = 1.0
"""Seconds: ten times the usual speed, for those who watch."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything is. ``data`` is the one thing that stays behind."""

    data: Path
    database_url: str
    broker_url: str
    api_url: str
    api_key: str
    artifacts: ArtifactServer


@contextmanager
def stage(folder: Path, tell: Callable[[str], None]) -> Iterator[Stage]:
    """Start everything; stop everything on the way out, whatever happened. ``tell`` is given each step.

    Raises:
        RollwaveError: something does not start.
    """
    logging.basicConfig(filename=folder / "demo.log", level=logging.WARNING)
    with ExitStack() as running:
        tell("PostgreSQL")
        postgres = running.enter_context(EmbeddedPostgres(folder / "postgres"))
        tell("an MQTT broker")
        broker = running.enter_context(EmbeddedBroker())
        tell("the schema, a tenant and a key")
        api_key = asyncio.run(_prepare(postgres.url))
        tell("the engine and its API")
        api_url = _serve(running, folder, postgres.url, broker.url)
        artifacts = running.enter_context(ArtifactServer(folder / "artifacts"))
        yield Stage(folder, postgres.url, broker.url, api_url, api_key, artifacts)


def data_folder(data: Path | None) -> Path:
    """``data``, or a new folder among the temporary files.

    Raises:
        RollwaveError: it cannot be made.
    """
    if data is None:
        folder = Path(tempfile.mkdtemp(prefix="rollwave-demo-"))
        folder.chmod(0o755)  # PostgreSQL may run as another user, who has to get in
        return folder
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RollwaveError(
            f"{data} cannot be made: {error.strerror}", hint="Name another folder with --data."
        ) from error
    return data.resolve()


async def _prepare(database_url: str) -> str:
    await migrate(database_url)
    async with create_pool(database_url, size=1) as pool:
        return await access.create(pool, TENANT, Role.OPERATOR, name="demo")


def _serve(running: ExitStack, folder: Path, database_url: str, broker_url: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = ServerProcess(
        [sys.executable, "-m", "rollwave", "serve", "--host", "127.0.0.1", "--port", str(port)],
        log=folder / "serve.log",
        # Nothing of the caller's: the demo is the same on every machine.
        env={
            "PATH": os.defpath,
            "DATABASE_URL": database_url,
            "MQTT_BROKER_URL": broker_url,
            "OTA_TICK_INTERVAL": str(TICK),
        },
    )
    running.callback(server.stop)
    server.wait_until(lambda: _ready(url), timeout=30.0, what="rollwave serve")
    return url


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=1.0, trust_env=False).is_success
    except httpx2.HTTPError:
        return False
