"""A whole installation, as an operator has it: `rollwave serve` on servers of one test, and a key."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from rollwave.domain.role import Role
from rollwave.store import access
from rollwave.store.database import create_pool
from tests.support import environment, eventually, free_port, program, rollwave, rollwave_running

TENANT = "north"


@dataclass(frozen=True, slots=True)
class Installation:
    """The addresses of an installation. ``env``: the variables that an operator has exported."""

    database: str
    broker: str
    env: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command and return it, whatever its exit code."""
        return rollwave(*arguments, env=self.env)

    def do(self, *arguments: str) -> str:
        """Run a command that must succeed. Returns its output."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def installed(
    database: str, broker: str, log: Path, *, port: int | None = None, tick: float = 0.2, timeout: float = 30
) -> AsyncIterator[Installation]:
    url = f"http://127.0.0.1:{port or free_port()}"
    settings = {"DATABASE_URL": database, "MQTT_BROKER_URL": broker, "OTA_TICK_INTERVAL": str(tick)}
    async with rollwave_running("serve", "--port", url.rpartition(":")[2], log=log, env=settings) as server:
        async with httpx2.AsyncClient(base_url=url, timeout=5, trust_env=False) as client:
            await eventually(lambda: _ready(client), timeout=timeout, what="rollwave serve is ready")
        async with create_pool(database, size=1) as pool:
            key = await access.create(pool, TENANT, Role.OPERATOR)
        yield Installation(database, broker, {"ROLLWAVE_API_URL": url, "ROLLWAVE_API_KEY": key, **settings})
        assert server.process.returncode is None, server.output()


def run_on_a_terminal(installation: Installation, *arguments: str) -> tuple[int, str]:
    """Run a command whose standard error is a terminal. Returns its exit code and what the terminal shows."""
    screen, terminal = pty.openpty()
    with os.fdopen(screen, "rb", buffering=0) as shown:
        running = subprocess.Popen(
            [program(), *arguments],
            env=environment(**installation.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
        )
        os.close(terminal)
        seen = b""
        with suppress(OSError):  # The terminal raises this when the other end is closed.
            while part := shown.read(4096):
                seen += part
    return running.wait(30), seen.decode()


async def _ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx2.TransportError:
        return False
