"""Viewers: programs that follow campaigns over HTTP during a schedule, from a server that is killed meanwhile.

Each overview that a viewer sees is checked against what it saw before, and the last one against the database.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from rollwave import log
from rollwave.api import server
from rollwave.api.app import create_app
from rollwave.console.app import install
from rollwave.domain.role import Role
from rollwave.settings import Settings
from rollwave.store import access
from rollwave.store.database import create_pool
from rollwave.store.guarded_pool import guarded
from tests.chaos.schedule import Plan
from tests.chaos.workers import forks
from tests.engine import Connection, breakdown, campaign_row
from tests.live import Stream, following
from tests.support import end, environment, eventually, free_port

LIVES = 2.0, 6.0
"""Seconds after which a server that listens is killed: at least, and at most."""
TICK = 0.2
"""Seconds between two reads of a campaign."""
AT_THE_END = 60.0
"""Seconds within which a viewer sees the end. On a busy machine it takes many to start a server and to connect."""
FINAL = "COMPLETED", "ABORTED"
NEVER_LESS = "SUCCESS", "SKIPPED"
"""States that no device leaves. A failed device does, if an operator retries it."""


@dataclass
class Viewer:
    """Follows one campaign.

    ``calm`` is set at the end: the server is killed no more. ``answers``: how often each status and each error was met.
    """

    campaign: int
    plan: Plan
    key: str
    calm: asyncio.Event
    last: dict[str, Any] = field(default_factory=dict)
    overviews: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def follow(self, url: str) -> None:
        """Follow until cancelled. A stream that breaks off is opened again, as a browser does."""
        headers = {"Authorization": f"Bearer {self.key}"}
        path = f"{url}/api/v1/customer/ota/campaigns/{self.campaign}/live"
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
            while True:
                try:
                    async with following(client, path) as stream:
                        self._note_answer(stream.answer.status_code)
                        await self._read(stream)
                except (httpx2.HTTPError, TimeoutError) as error:
                    self.answers[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    async def _read(self, stream: Stream) -> None:
        while (event := await stream.next()) is not None:
            if event.name == "overview":
                self.see(event.data)
            elif event.name == "end":
                self.wrong.append(f"campaign {self.campaign}: the stream ended, {event.data}")

    def _note_answer(self, status: int) -> None:
        self.answers[str(status)] += 1
        if status not in (200, 503):  # 503: the database is unavailable.
            self.wrong.append(f"campaign {self.campaign}: the stream was answered with {status}")

    def see(self, overview: dict[str, Any]) -> None:
        """Check an overview by itself, and against the one before it."""
        self.overviews += 1
        self.wrong += [f"campaign {self.campaign}: {each}: {overview}" for each in _faults(overview)]
        self.wrong += [f"campaign {self.campaign}: {each}" for each in _steps_back(self.last, overview, self.plan)]
        self.last = overview

    async def differences(self, host: Connection) -> list[str]:
        """What is wrong with the overviews seen, and differences between the last one and the database."""
        there = await breakdown(host, self.campaign, self.plan.tenant)
        status, *_ = await campaign_row(host, self.campaign, self.plan.tenant)

        def same() -> bool:
            shown = {state: number for state, number in self.last.get("devices", {}).items() if number}
            shown.pop("total", None)
            return self.last.get("status") == status and shown == there

        self.calm.set()
        try:
            await eventually(same, timeout=AT_THE_END, what="the viewer to see the end")
        except AssertionError:
            seen = self.last.get("as_of"), self.last.get("status"), self.last.get("devices")
            self.wrong.append(
                f"campaign {self.campaign} is {status} with {there}, its viewer saw {seen}; {dict(self.answers)}"
            )
        if self.plan.all_bad and self.last["headline"]["level"] != "stop":
            self.wrong.append(f"campaign {self.campaign} was aborted, and its verdict is {self.last['headline']}")
        return self.wrong


def _faults(overview: Mapping[str, Any]) -> list[str]:
    """Contradictions within one overview."""
    devices, status = dict(overview["devices"]), overview["status"]
    total = devices.pop("total")
    tripped = [each for each in overview["guardrails"] if each["tripped"] and each["action"] == "abort"]
    found = []
    if total != sum(devices.values()) or min(devices.values()) < 0:
        found.append("the devices do not sum to their total")
    if status == "ABORTED" and tripped and overview["headline"]["level"] != "stop":
        found.append("aborted by a guardrail, and the verdict is not stop")
    if status in FINAL and any(overview["actions"][each] for each in ("pause", "resume", "start", "abort")):
        found.append("an action is offered on a campaign that is over")
    return found


def _steps_back(before: Mapping[str, Any], now: Mapping[str, Any], plan: Plan) -> list[str]:
    """Counters and states that went back between two overviews."""
    if not before:
        return []
    never_less = NEVER_LESS if plan.documented else (*NEVER_LESS, "FAILED")  # Operators retry under documents only.
    then, found = before["devices"], []
    found += [f"{state} went from {then[state]} to {now['devices'][state]}" for state in never_less
              if now["devices"][state] < then[state]]  # fmt: skip
    if now["as_of"] < before["as_of"]:
        found.append(f"time went from {before['as_of']} to {now['as_of']}")
    if not plan.documented and before["status"] in FINAL and now["status"] != before["status"]:
        found.append(f"the status went from {before['status']} to {now['status']}")
    return found


@asynccontextmanager
async def viewing(database: str, folder: Path, campaigns: Mapping[int, Plan], seed: int) -> AsyncIterator[list[Viewer]]:
    """Follow each campaign for the block, from a server that is killed and started again all the while."""
    async with create_pool(database, size=1) as pool:
        keys = {plan.tenant: await access.create(pool, plan.tenant, Role.VIEWER) for plan in campaigns.values()}
    calm = asyncio.Event()
    viewers = [Viewer(campaign, plan, keys[plan.tenant], calm) for campaign, plan in campaigns.items()]
    port = free_port()
    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(each.follow(f"http://127.0.0.1:{port}")) for each in viewers]
        dice = random.Random(f"viewers {seed}")
        tasks.append(asyncio.create_task(_keep_killing(database, folder, port, dice, calm)))
        for task in tasks:
            stack.push_async_callback(end, task)
        yield viewers
        for task in tasks:
            assert not task.done(), f"a viewer ended with {task.exception()!r}"


async def _keep_killing(database: str, folder: Path, port: int, dice: random.Random, calm: asyncio.Event) -> None:
    while True:
        process = forks.Process(target=_serve, args=(database, port, str(folder / "server.log")), daemon=True)
        process.start()
        try:
            await eventually(lambda: not process.is_alive() or _listens(port), what="the server listens")  # noqa: B023
            await asyncio.to_thread(process.join, dice.uniform(*LIVES))
            while calm.is_set() and process.is_alive():
                await asyncio.to_thread(process.join, 1)
        finally:
            process.kill()
            await asyncio.to_thread(process.join)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _serve(database: str, port: int, log_file: str) -> None:
    """Serve the API and the console in the forked process, without a worker."""
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    wanted = environment()
    os.environ.clear()
    os.environ.update(wanted)
    asyncio.run(_serving(database, port))


async def _serving(database: str, port: int) -> None:
    log.configure(Settings())
    async with create_pool(database, size=3) as bare:
        pool = guarded(bare)
        app = create_app(pool, Settings())
        install(app, pool, Settings())
        app.state.hub.tick = TICK
        await server.serve(app, "127.0.0.1", port)
