"""One schedule, played on real servers, and what was wrong in the end."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import asyncpg

from rollwave.mqtt.payload import encode_report
from rollwave.mqtt.topics import parse_status_topic
from tests.auditor import auditing
from tests.chaos.crew import Crew, crew
from tests.chaos.ground import Ground
from tests.chaos.schedule import Plan, Schedule, Trouble
from tests.engine import Command, Connection, Devices, breakdown, campaign_row, connect, devices, ends, insert_campaign
from tests.servers import Mosquitto
from tests.support import eventually

LEASE = 1.0
SETTINGS = {"OTA_TICK_INTERVAL": "0.1", "ROLLWAVE_LEASE": str(LEASE), "ROLLWAVE_PUBLISH_TIMEOUT": "1"}
PATIENT = {"OTA_PROGRESS_TIMEOUT": "3600"}
"""Where nothing may be lost: were a report, its campaign would not end in our time."""
IMPATIENT = {"OTA_PROGRESS_TIMEOUT": "1.5", "OTA_MAX_ATTEMPTS": "50"}
"""Where the broker may forget: deadlines send again."""

NEVER_LOGGED = ("ota_counters_repaired", "was never awaited", "was never retrieved")

ENOUGH = 60.0
"""Seconds within which a campaign must have ended."""


@dataclass
class Verdict:
    """What became of a schedule."""

    schedule: Schedule
    problems: list[str] = field(default_factory=list)
    deaths: int = 0
    commands: int = 0
    reports: int = 0
    snapshots: int = 0
    seconds: float = 0.0


def fate(device: str) -> str:
    """What a device ends as where not all is bad: one in ten fails."""
    return "FAILED" if device.endswith("7") else "SUCCESS"


@dataclass
class Habits:
    """How devices answer: repeating themselves, in any order; where nothing is lost, once a campaign."""

    dice: random.Random
    forgetful: bool
    bad: frozenset[int] = frozenset()
    answered: set[tuple[str, str, int]] = field(default_factory=set)

    def answer(self, command: Command) -> Sequence[bytes]:
        """What a device says to a command."""
        key = command.tenant, command.device, command.campaign
        if self.forgetful and self.dice.random() < 0.1:
            return ()
        if not self.forgetful and key in self.answered:
            return ()
        self.answered.add(key)
        last = "FAILED" if command.campaign in self.bad else fate(command.device)
        words = ["DOWNLOADING", "INSTALLING"] * self.dice.randint(0, 2) + [last] * self.dice.randint(1, 3)
        self.dice.shuffle(words)
        return [encode_report(command.campaign, word) for word in words]


async def play(schedule: Schedule, ground: Ground) -> Verdict:
    """Play a schedule. Nothing is raised: what went wrong is in the verdict."""
    verdict = Verdict(schedule)
    started = time.monotonic()
    seen = len(ground.server.log.read_text())
    folder = ground.folder / f"seed-{schedule.seed}"
    folder.mkdir(mode=0o755)
    try:
        with Mosquitto(folder) as mosquitto:
            async with ground.database() as database:
                await _Performance(schedule, verdict, ground, database, mosquitto, folder).play()
    except (AssertionError, ExceptionGroup, OSError, asyncpg.PostgresError) as error:
        verdict.problems.append(f"{type(error).__name__}: {error}")
    if "deadlock detected" in ground.server.log.read_text()[seen:]:
        verdict.problems.append("a deadlock")
    verdict.seconds = time.monotonic() - started
    if verdict.problems:
        kept = Path(tempfile.mkdtemp(prefix=f"rollwave-seed-{schedule.seed}-"))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        shutil.copy(ground.server.log, kept / "postgresql.log")
        verdict.problems.append(f"the logs are in {kept}")
    shutil.rmtree(folder)
    return verdict


class _Performance:
    def __init__(
        self, schedule: Schedule, verdict: Verdict, ground: Ground, database: str, mosquitto: Mosquitto, folder: Path
    ) -> None:
        self.schedule, self.verdict = schedule, verdict
        self.ground, self.database, self.mosquitto, self.folder = ground, database, mosquitto, folder
        self.habits = Habits(random.Random(schedule.seed), schedule.forgetful)
        self.campaigns: dict[int, Plan] = {}

    async def play(self) -> None:
        settings = SETTINGS | (IMPATIENT if self.schedule.forgetful else PATIENT)
        settings |= {"DATABASE_URL": self.database, "MQTT_BROKER_URL": self.mosquitto.url}
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(devices(self.mosquitto.url, self.habits.answer, "fleet"))
            auditor = await stack.enter_async_context(auditing(self.database, rest=0.02))
            async with connect(self.database) as host:
                for plan in self.schedule.plans:
                    await self._begin(host, plan)
            schedule = self.schedule
            workers = await stack.enter_async_context(crew(settings, self.folder, schedule.workers, schedule.traps))
            mending = asyncio.create_task(self._mend(workers))
            try:
                await asyncio.gather(self._trouble(workers, fleet), self._abort(fleet))
                await self._check(fleet, workers)
            finally:
                mending.cancel()
                await asyncio.gather(mending, return_exceptions=True)
                self.verdict.commands, self.verdict.reports = len(fleet.commands), len(fleet.accepted)
                self.verdict.snapshots, self.verdict.deaths = auditor.snapshots, workers.killed()

    async def _begin(self, host: Connection, plan: Plan) -> None:
        campaign = await insert_campaign(
            host,
            plan.devices,
            tenant=plan.tenant,
            rollout_rate=plan.rate,
            rollout_strategy="linear" if plan.canary_percent is None else "canary",
            canary_percent=plan.canary_percent,
            max_in_flight=plan.max_in_flight,
            abort_threshold=0.1 if plan.all_bad else 1.0,
        )
        self.campaigns[campaign] = plan
        if plan.all_bad:
            self.habits.bad |= {campaign}

    async def _mend(self, workers: Crew) -> None:
        while True:
            await workers.mend()
            await asyncio.sleep(0.1)

    async def _trouble(self, workers: Crew, fleet: Devices) -> None:
        for trouble, whom in self.schedule.troubles:
            before, since = len(fleet.commands), time.monotonic()
            await eventually(lambda: len(fleet.commands) > before + 8 or time.monotonic() > since + 1, timeout=3)  # noqa: B023
            await self._strike(trouble, whom, workers)

    async def _strike(self, trouble: Trouble, whom: int, workers: Crew) -> None:
        match trouble:
            case Trouble.KILL:
                await workers.signal(whom, signal.SIGKILL)
            case Trouble.TERMINATE:
                await workers.signal(whom, signal.SIGTERM)
            case Trouble.STOP:
                await workers.signal(whom, signal.SIGSTOP)
                await asyncio.sleep(1.5 * LEASE)
                workers.wake()
            case Trouble.DATABASE_CRASH:
                await self._restart_database("immediate")
            case Trouble.DATABASE_RESTART:
                await self._restart_database("fast")
            case Trouble.BROKER_RESTART:
                await asyncio.to_thread(self.mosquitto.stop)
                await asyncio.to_thread(self.mosquitto.start)
            case Trouble.BROKER_CRASH:
                await asyncio.to_thread(self.mosquitto.crash)
                await asyncio.to_thread(self.mosquitto.start)
            case Trouble.PAUSE:
                await self._move("RUNNING", "PAUSED")
                await asyncio.sleep(0.3)
                await self._move("PAUSED", "RUNNING")

    async def _restart_database(self, how: Literal["fast", "immediate"]) -> None:
        await asyncio.to_thread(self.ground.server.stop, how)
        await asyncio.to_thread(self.ground.server.start)

    async def _move(self, before: str, after: str) -> None:
        async with connect(self.database) as host:
            await host.execute("UPDATE ota_campaigns SET status = $2 WHERE status = $1", before, after)

    async def _abort(self, fleet: Devices) -> None:
        for campaign, plan in self.campaigns.items():
            if plan.ends == "ABORTED" and not plan.all_bad:
                enough = min(self.schedule.abort_after, plan.devices // 2)
                await eventually(lambda: len(fleet.of(campaign, plan.tenant)) >= enough, timeout=ENOUGH)  # noqa: B023
                await eventually(lambda: self._aborted(campaign), timeout=ENOUGH)  # noqa: B023

    async def _aborted(self, campaign: int) -> bool:
        try:
            async with connect(self.database) as host:
                await host.execute("UPDATE ota_campaigns SET status = 'ABORTED' WHERE id = $1", campaign)
        except (OSError, asyncpg.PostgresError):
            return False  # the database is the trouble just now
        return True

    async def _check(self, fleet: Devices, workers: Crew) -> None:
        """That each campaign ends as it should, and that what the broker took is what counts."""
        wrong = self.verdict.problems
        async with connect(self.database) as host:
            for campaign, plan in self.campaigns.items():
                await ends(host, campaign, plan.ends, tenant=plan.tenant, timeout=ENOUGH)
                found = await breakdown(host, campaign, plan.tenant)
                _, succeeded, failed = await campaign_row(host, campaign, plan.tenant)
                if (succeeded, failed) != (found.get("SUCCESS", 0), found.get("FAILED", 0)):
                    wrong.append(f"campaign {campaign} counts {succeeded} and {failed}, its rows are {found}")
                if plan.ends == "COMPLETED" and "SKIPPED" in found:
                    wrong.append(f"campaign {campaign} completed with devices skipped: {found}")
            await fleet.delivered()
            wrong += await self._differences(host, fleet)
        bodies = {(each.campaign, each.body) for each in fleet.commands}
        if len(bodies) != len(dict(bodies)):
            wrong.append(f"a campaign sent different bodies: {bodies}")
        output = workers.output()
        wrong += [f"a worker logged {each!r}" for each in NEVER_LOGGED if each in output]
        workers.bury()
        if gone := workers.unasked():
            wrong.append(f"workers ended by themselves: {gone}")

    async def _differences(self, host: Connection, fleet: Devices) -> list[str]:
        """Rows that are not what their device was first heard to end as.

        A device skipped after a stop is none, nor one that a stopped campaign gives up: its command, or its word, is
        what the broker forgot.
        """
        said: dict[tuple[str, str, int], str] = {}
        for topic, payload in fleet.accepted:
            source, report = parse_status_topic(topic), json.loads(payload)
            if source and report["status"] in ("SUCCESS", "FAILED"):
                said.setdefault((*source, report["campaign_id"]), report["status"])
        rows = await host.fetch("SELECT * FROM ota_device_status")
        differing = Counter(
            (
                f"{row['status']} ({row['error_message']})",
                row["status"],
                said.get((row["tenant_id"], row["device_id"], row["campaign_id"])),
            )
            for row in rows
            if row["status"] != "SKIPPED" and not self._given_up(row)
        )
        return [f"{n} devices are {all_} and said {was}" for (all_, is_, was), n in differing.items() if is_ != was]

    def _given_up(self, row: asyncpg.Record) -> bool:
        stopped = self.campaigns[row["campaign_id"]].ends == "ABORTED"
        return (
            self.schedule.forgetful
            and stopped
            and (row["error_message"] or "").startswith(("no ", "an attempt failed"))
        )
