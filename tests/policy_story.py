"""A campaign under a policy document, driven over the API: a real broker, the simulated fleet, and a moved clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from rollwave.domain.role import Role
from rollwave.engine.worker.supervisor import Supervisor
from rollwave.engine.worker.worker import Worker
from rollwave.fleet.faults import Fault, Stage
from rollwave.fleet.population import FleetPlan
from rollwave.fleet.simulation import Fleet
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import status_topic
from rollwave.settings import Settings
from rollwave.store.database import Pool, create_pool
from tests.api import CAMPAIGNS, calling
from tests.moved_clock import Clock
from tests.support import eventually

TENANT = "north"
TICK_SECONDS = 0.2

Fields = Mapping[str, Mapping[str, object] | None]
"""Devices, and with which fields they are registered; None: they are not."""

MUTE = Fault(Stage.COMMAND, silent=True)
"""The device never answers."""

HANGS = Fault(Stage.DOWNLOAD, silent=True)
"""The device reports that it downloads, and nothing more."""


@dataclass
class Campaign:
    """A campaign as a customer's program sees it."""

    client: httpx2.AsyncClient
    path: str

    async def read(self) -> dict[str, Any]:
        """The campaign's page."""
        page: dict[str, Any] = await self.get("")
        return page

    async def get(self, path: str) -> Any:
        """Anything under the campaign."""
        answer = await self.client.get(f"{self.path}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def do(self, action: str, *, by: httpx2.AsyncClient | None = None, **body: object) -> httpx2.Response:
        """Call an action."""
        return await (by or self.client).post(f"{self.path}/{action}", json=body or None)

    async def start(self) -> None:
        """Start it, or start it again."""
        answer = await self.do("start")
        assert answer.json().get("status") == "RUNNING", answer.text

    async def edit(self, policy: Mapping[str, object], **headers: str) -> httpx2.Response:
        """Replace its policy."""
        return await self.client.put(f"{self.path}/policy", json=policy, headers=headers)

    async def is_(self, status: str, *, timeout: float = 15.0) -> dict[str, Any]:
        """Wait until it has this status. Returns its page."""
        shown: dict[str, Any] = {}

        async def reached() -> bool:
            shown.update(await self.read())
            return bool(shown["status"] == status)

        try:
            await eventually(reached, timeout=timeout, what=status)
        except AssertionError:
            waiting = (await self.get("/waiting"))["waiting"]
            raise AssertionError(f"not {status}: {shown}; {waiting}") from None
        return shown

    async def wave(self, name: str) -> dict[str, Any]:
        """One of its waves."""
        waves: list[dict[str, Any]] = (await self.read())["waves"]
        return next(each for each in waves if each["name"] == name)

    async def wave_is(self, name: str, state: str) -> None:
        """Wait until a wave has this state."""
        seen: list[object] = []

        async def reached() -> bool:
            seen[:] = [await self.wave(name)]
            return bool((await self.wave(name))["state"] == state)

        try:
            await eventually(reached, timeout=15, what=state)
        except AssertionError:
            raise AssertionError(f"{name} is not {state}: {seen}") from None

    async def waits(self, **expected: int) -> dict[str, Any]:
        """Wait until its devices wait for exactly these gates. Their sum is always what is pending.

        Returns the entries by gate; of several entries for a gate, the one that opens first.
        """
        entries: dict[str, Any] = {}
        seen: list[object] = []

        async def reached() -> bool:
            found = await self.get("/waiting")
            assert sum(each["devices"] for each in found["waiting"]) == found["pending"], found
            entries.clear()
            for each in sorted(found["waiting"], key=lambda each: each["until"] or ""):
                entries.setdefault(each["reason"], each)
            counted: Counter[str] = Counter()
            for each in found["waiting"]:
                counted[each["reason"]] += each["devices"]
            seen[:] = found["waiting"]
            return counted == expected

        try:
            await eventually(reached, timeout=15, what="waiting")
        except AssertionError:
            raise AssertionError(f"waits for {seen}, not {expected}; {await self.read()}") from None
        return entries

    async def explains(self, device: str) -> dict[str, Any]:
        """The verdicts for one device, by gate; and its may_go_now under that name."""
        found = await self.get(f"/devices/{device}/explain")
        return {each["gate"]: each for each in found["checks"]} | {"may_go_now": found["may_go_now"], "is": found}

    async def history(self, event: str) -> list[dict[str, Any]]:
        """The details of its events of one kind, oldest first."""
        found = (await self.get("/events?limit=1000"))["events"]
        return [{**each["detail"], "actor": each["actor"]} for each in found if each["event"] == event]

    async def counted(self, **expected: int) -> None:
        """Wait until exactly this many devices have these statuses."""
        seen: dict[str, int] = {}

        async def reached() -> bool:
            breakdown = (await self.read())["status_breakdown"]
            seen.clear()
            seen.update({status: number for status, number in breakdown.items() if number})
            return seen == expected

        try:
            await eventually(reached, timeout=15, what=str(expected))
        except AssertionError:
            waiting = (await self.get("/waiting"))["waiting"]
            raise AssertionError(f"{seen}, not {expected}; {waiting}; {await self.read()}") from None


@dataclass
class World:
    """An installation with one tenant: its API, a worker, the fleet, and the database's clock.

    ``fault``: what a device does with a command; None: it succeeds. Tests set it.
    """

    pool: Pool
    client: httpx2.AsyncClient
    clock: Clock
    settings: Settings
    fault: Callable[[str], Fault | None] = lambda _: None
    fleet: Fleet = field(init=False)

    @property
    def sent(self) -> set[str]:
        """The devices that have received a command."""
        return {device for device, number in self.fleet.received.items() if number}

    async def put(self, path: str, body: object) -> None:
        answer = await self.client.put(path, json=body)
        assert answer.status_code == 200, answer.text

    async def register(self, devices: Fields) -> None:
        """Register devices with these fields, and put them all into the group ``all``. None: only that."""
        for device, fields in devices.items():
            if fields is not None:
                await self.put(f"/devices/{device}", fields)
        await self.put("/device-groups/all", {"device_ids": sorted(devices)})

    async def create(self, policy: object, *, size: int | None = 1000, dry_run: bool = False) -> httpx2.Response:
        """Create a campaign over the group ``all``. ``size``: bytes of its firmware."""
        number = (await self.client.get("/firmware")).json()["total"]
        firmware = {"version": f"2.{number}", "file_url": "https://files.example/fw.bin", "checksum_sha256": "ab" * 32}
        answer = await self.client.post(
            "/firmware", json=firmware | ({} if size is None else {"file_size_bytes": size})
        )
        body = {"name": "spring", "firmware_version_id": answer.json()["id"], "target_group_id": "all"}
        query = "?dry_run=true" if dry_run else ""
        return await self.client.post(f"{CAMPAIGNS}{query}", json=body | {"policy": policy})

    async def created(self, policy: object, *, size: int | None = 1000) -> Campaign:
        """Create a campaign that must be valid."""
        answer = await self.create(policy, size=size)
        assert answer.status_code == 201, answer.text
        return Campaign(self.client, f"{CAMPAIGNS}/{answer.json()['id']}")

    async def started(self, policy: object, *, size: int | None = 1000) -> Campaign:
        """Create and start a campaign."""
        campaign = await self.created(policy, size=size)
        await campaign.start()
        return campaign

    async def sends(self, devices: int) -> None:
        """Wait until exactly this many devices have received a command."""
        await eventually(lambda: len(self.sent) == devices, timeout=15, what=f"{devices} devices, not {self.sent}")

    async def report(self, device: str, campaign: int, status: str, *, code: str | None = None) -> None:
        """Let a device send a report of its own accord, such as one that hung so far."""
        async with Session.connect(Broker.from_settings(self.settings)) as session:
            body = encode_report(campaign, status, code=code)
            receipt = await session.publish(status_topic(TENANT, device), body)
            await receipt.acknowledged()

    async def still(self, seconds: float = 5 * TICK_SECONDS) -> None:
        """Let a worker look several times."""
        await asyncio.sleep(seconds)

    async def rests(self, devices: int) -> None:
        """Assert that no more than this many devices receive a command while a worker looks several times."""
        await self.sends(devices)
        await self.still()
        assert len(self.sent) == devices, sorted(self.sent)

    @asynccontextmanager
    async def other_key(self, role: Role = Role.APPROVER) -> AsyncIterator[httpx2.AsyncClient]:
        """A client with another key of the same tenant."""
        async with calling(self.pool, TENANT, role, settings=self.settings) as client:
            yield client


@asynccontextmanager
async def world(database: str, broker: str, clock: Clock, devices: Fields) -> AsyncIterator[World]:
    """Run an installation with these devices, which are in the group ``all``."""
    settings = Settings(MQTT_BROKER_URL=broker, OTA_TICK_INTERVAL=TICK_SECONDS)
    async with create_pool(database) as pool, calling(pool, TENANT, settings=settings) as client:
        here = World(pool, client, clock, settings)
        await here.register(devices)
        plan = FleetPlan(
            TENANT, sorted(devices), download=False, behaviour=lambda device, _: here.fault(device), connections=2
        )
        async with Fleet(Broker.from_url(broker), plan) as here.fleet, _worker(pool, settings):
            await here.fleet.ready
            yield here


@asynccontextmanager
async def _worker(pool: Pool, settings: Settings) -> AsyncIterator[None]:
    supervisor = Supervisor()
    Worker(pool, settings).join(supervisor)
    running = asyncio.create_task(supervisor.run())
    try:
        yield
    finally:
        supervisor.stopping.set()
        await asyncio.wait_for(running, 30)
