"""Starts the servers of the demo in order, and stops them in reverse order."""

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

from rollwave.console.session import login_link
from rollwave.demo.artifact import ArtifactServer
from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker, free_port
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.embedded.process import ServerProcess
from rollwave.errors import RollwaveError
from rollwave.store import access
from rollwave.store.access import Grant
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate

TENANT = "demo"
TICK = 1.0
"""Length of a tick in seconds. It is a tenth of the default, so that the demo is short."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The addresses of the running servers. ``data`` is their folder, which is kept when they stop.

    ``api_key`` has the role operator. ``login_link`` logs in to the console as an admin.
    """

    data: Path
    database_url: str
    broker_url: str
    api_url: str
    api_key: str
    login_link: str
    artifacts: ArtifactServer


@contextmanager
def running_servers(folder: Path, on_step: Callable[[str], None]) -> Iterator[Servers]:
    """Start all servers, and stop them when the ``with`` block ends, also after an error.

    ``on_step`` is called with the name of each server before it is started.

    Raises:
        RollwaveError: a server does not start.
    """
    logging.basicConfig(filename=folder / "demo.log", level=logging.WARNING)
    with ExitStack() as running:
        on_step("PostgreSQL")
        postgres = running.enter_context(EmbeddedPostgres(folder / "postgres"))
        on_step("an MQTT broker")
        broker = running.enter_context(EmbeddedBroker())
        on_step("the schema, a tenant and a key")
        api_key, admin = asyncio.run(_prepare(postgres.url))
        on_step("the engine, its API and the console")
        api_url = _serve(running, folder, postgres.url, broker.url)
        artifacts = running.enter_context(ArtifactServer(folder / "artifacts"))
        link = asyncio.run(_login_link(postgres.url, admin, api_url))
        yield Servers(folder, postgres.url, broker.url, api_url, api_key, link, artifacts)


def data_folder(data: Path | None) -> Path:
    """``data``, or a new temporary folder.

    Raises:
        RollwaveError: the folder cannot be created.
    """
    if data is None:
        folder = Path(tempfile.mkdtemp(prefix="rollwave-demo-"))
        folder.chmod(0o755)  # PostgreSQL may run as another user, which needs access
        return folder
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RollwaveError(
            f"Cannot create {data}: {error.strerror}", hint="Name another folder with --data."
        ) from error
    return data.resolve()


async def _prepare(database_url: str) -> tuple[str, Grant]:
    """Make the schema, the tenant and two keys. Returns the operator's key, and the grant of the admin's."""
    await migrate(database_url)
    async with create_pool(database_url, size=1) as pool:
        operator = await access.create(pool, TENANT, Role.OPERATOR, name="demo")
        admin = await access.verify(pool, await access.create(pool, TENANT, Role.ADMIN, name="console of the demo"))
    assert admin
    return operator, admin


async def _login_link(database_url: str, grant: Grant, api_url: str) -> str:
    async with create_pool(database_url, size=1) as pool:
        return await login_link(pool, grant, api_url)


def _serve(running: ExitStack, folder: Path, database_url: str, broker_url: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = ServerProcess(
        [sys.executable, "-m", "rollwave", "serve", "--host", "127.0.0.1", "--port", str(port)],
        log=folder / "serve.log",
        # The caller's environment is not passed on, so that the demo is the same on every machine.
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
