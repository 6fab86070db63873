"""`rollwave serve` with servers of its own, and tenants with keys for each role."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from rollwave.domain.role import Role
from rollwave.embedded.broker import EmbeddedBroker
from rollwave.embedded.process import ServerProcess
from rollwave.store import access
from rollwave.store.database import create_pool
from rollwave.store.migrate import migrate
from tests.api import CAMPAIGNS, CUSTOMER
from tests.ports import free_port
from tests.servers import server_folder, start_postgres
from tests.support import environment

TICK = 0.5
"""Length of a tick of the engine, in seconds."""

_numbers = itertools.count(1)


class Console:
    """One `rollwave serve`. It can be stopped, and started again on the same port."""

    def __init__(self, folder: Path, database: str, broker: str, **settings: str) -> None:
        self.port = free_port()
        self.log = folder / "serve.log"
        self._env = environment(DATABASE_URL=database, MQTT_BROKER_URL=broker, OTA_TICK_INTERVAL=str(TICK), **settings)
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it is ready."""
        command = [sys.executable, "-m", "rollwave", "serve", "--port", str(self.port)]
        self._process = ServerProcess(command, log=self.log, env=self._env)
        self._process.wait_until(self._ready, timeout=60.0, what="rollwave serve")

    def stop(self) -> None:
        """Stop it, as a service manager does."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=2.0, trust_env=False).is_success
        except httpx2.HTTPError:
            return False


@dataclass(frozen=True, slots=True)
class House:
    """The servers that the tests of one process share. Each test has a tenant of its own."""

    database: str
    broker: str
    console: Console
    folder: Path

    async def tenant(self) -> Tenant:
        """A new tenant, with a key for each role."""
        name = f"tenant-{next(_numbers)}"
        async with create_pool(self.database, size=1) as pool:
            keys = {role: await access.create(pool, name, role, name=f"the {role}") for role in Role}
        return Tenant(name, self, self.console, keys)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant, and the API as its programs call it."""

    name: str
    house: House
    console: Console
    keys: dict[Role, str]

    async def call(self, method: str, path: str, *, role: Role = Role.OPERATOR, **body: Any) -> Any:
        """Call the API. Returns the body of the answer, which must be a success."""
        async with httpx2.AsyncClient(
            base_url=f"{self.console.url}{CUSTOMER}",
            headers={"Authorization": f"Bearer {self.keys[role]}"},
            timeout=60.0,
            trust_env=False,
        ) as client:
            answer = await client.request(method, path, json=body or None)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json() if answer.content else None

    async def register(self, devices: dict[str, dict[str, Any]], *, group: str = "all") -> None:
        """Make a group of devices with these labels."""
        members = [{"device_id": name, "attributes": labels} for name, labels in devices.items()]
        await self.call("PUT", f"/device-groups/{group}", device_ids=[], devices=members)

    async def firmware(self, version: str) -> int:
        """Register a firmware. Returns its id."""
        made = await self.call(
            "POST", "/firmware", version=version, file_url="https://files.example/fw.bin", checksum_sha256="ab" * 32
        )
        return int(made["id"])

    async def create(self, name: str, firmware: int, *, group: str = "all", **rules: Any) -> int:
        """Create a campaign over a group. Returns its id."""
        made = await self.call(
            "POST", CAMPAIGNS, name=name, firmware_version_id=firmware, target_group_id=group, **rules
        )
        return int(made["id"])

    async def start(self, campaign: int) -> None:
        await self.call("POST", f"{CAMPAIGNS}/{campaign}/start")

    async def state(self, campaign: int) -> dict[str, Any]:
        """The campaign as the API shows it."""
        shown: dict[str, Any] = await self.call("GET", f"{CAMPAIGNS}/{campaign}")
        return shown


@contextmanager
def house() -> Iterator[House]:
    """Start everything. Roles belong to a PostgreSQL server, and other tests change them: this has one of its own."""
    with server_folder() as folder, start_postgres("embedded", folder) as postgres, EmbeddedBroker() as broker:
        asyncio.run(migrate(postgres.url))
        console = Console(folder, postgres.url, broker.url)
        console.start()
        try:
            yield House(postgres.url, broker.url, console, folder)
        finally:
            console.stop()
