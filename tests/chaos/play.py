"""Plays one schedule on real servers, and reports every problem found."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rollwave.mqtt.topics import command_topic
from rollwave.settings import Settings
from rollwave.store.outage import CONNECTION_TROUBLE
from rollwave.tasks import failure_of
from tests.auditor import auditing
from tests.chaos import checks
from tests.chaos.device_behaviour import DeviceBehaviour, question
from tests.chaos.documents import draw_document, insert_document
from tests.chaos.fresh_databases import FreshDatabases
from tests.chaos.injected_faults import Effect
from tests.chaos.link import Link
from tests.chaos.operators import Operators, letting_end
from tests.chaos.readers import EventReader, asking, reading
from tests.chaos.schedule import ALL_ACTS_FROM, DEADLINE, LONG_PAUSE, TIMEOUT, Plan, Schedule, Trouble
from tests.chaos.silence import watching
from tests.chaos.viewers import Viewer, viewing
from tests.chaos.workers import Workers, running_workers
from tests.engine import Connection, Devices, connect, devices, insert_campaign
from tests.policy_audit.auditor import PolicyAuditor
from tests.proxy import Proxy, proxy
from tests.servers import Mosquitto
from tests.support import end, eventually

LEASE, TICK = 1.0, 0.1
SETTINGS = {"OTA_TICK_INTERVAL": str(TICK), "ROLLWAVE_LEASE": str(LEASE), "ROLLWAVE_PUBLISH_TIMEOUT": "1"}
LEASE_OF_A_SEARCH = 5.0
"""Lease used when isolation has to find a device over which the broker ends the connection.

Isolation opens several sessions, and ends with its lease.
"""
PATIENT = {"OTA_PROGRESS_TIMEOUT": "3600"}
"""Timeouts used when nothing may be lost: a campaign with a lost report would not end within the time limit."""
PAUSED_TIMEOUTS = {"OTA_PROGRESS_TIMEOUT": "1.5", "OTA_MAX_ATTEMPTS": "50"}
"""Timeouts used when the broker may lose messages: deadlines send them again."""

ASK_EVERY = 0.5
"""Seconds between two questions of devices about what to do."""

STOPPED_SECONDS = 2.5
"""More seconds than a worker is stopped for."""

LONGEST_START_SECONDS = 5.0
"""Seconds to wait for the first command of a campaign that is to be cancelled."""

MAX_SECONDS = 60.0
"""Seconds within which a campaign must end."""


@dataclass
class Verdict:
    """The result of a schedule."""

    schedule: Schedule
    problems: list[str] = field(default_factory=list)
    deaths: int = 0
    commands: int = 0
    reports: int = 0
    snapshots: int = 0
    events: int = 0
    """The number of events that readers have seen."""
    overviews: int = 0
    """The number of overviews that viewers have seen."""
    seconds: float = 0.0


async def play(schedule: Schedule, databases: FreshDatabases) -> Verdict:
    """Play a schedule. Nothing is raised: problems are listed in the verdict."""
    verdict = Verdict(schedule)
    started = time.monotonic()
    seen = len(databases.server.log.read_text())
    folder = databases.folder / f"seed-{schedule.seed}"
    folder.mkdir(mode=0o755)
    try:
        with Mosquitto(folder) as mosquitto:
            async with databases.database() as database:
                await _Run(schedule, verdict, databases, database, mosquitto, folder).play()
    except Exception as error:  # noqa: BLE001  whatever it is, the schedules after it are played
        verdict.problems.append(f"{type(error).__name__}: {error}")
    if "deadlock detected" in databases.server.log.read_text()[seen:]:
        verdict.problems.append("a deadlock")
    verdict.seconds = time.monotonic() - started
    if verdict.problems:
        kept = Path(tempfile.mkdtemp(prefix=f"rollwave-seed-{schedule.seed}-"))
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        shutil.copy(databases.server.log, kept / "postgresql.log")
        verdict.problems.append(f"the logs are in {kept}")
    shutil.rmtree(folder)
    return verdict


@dataclass
class _Run:
    schedule: Schedule
    verdict: Verdict
    databases: FreshDatabases
    database: str
    mosquitto: Mosquitto
    folder: Path

    def __post_init__(self) -> None:
        self.dice = random.Random(self.schedule.seed)
        self.behaviour = DeviceBehaviour(self.dice, self.schedule.forgetful)
        self.campaigns: dict[int, Plan] = {}
        self.operators: dict[int, Operators] = {}

    async def play(self) -> None:
        schedule = self.schedule
        settings = SETTINGS | (PAUSED_TIMEOUTS if schedule.forgetful else PATIENT) | {"DATABASE_URL": self.database}
        lease = LEASE
        if any(trouble.topics for trouble in schedule.link):
            lease = LEASE_OF_A_SEARCH
            settings |= {"ROLLWAVE_LEASE": str(lease), "ROLLWAVE_PUBLISH_TIMEOUT": str(lease)}
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(devices(self.mosquitto.url, self.behaviour.answer, "fleet"))
            self.behaviour.slow = fleet if schedule.seed >= ALL_ACTS_FROM else None
            fleet.when_cancelled = self.behaviour.cancelled
            policies = PolicyAuditor(tick=TICK, grace=STOPPED_SECONDS if self._stops_workers() else 0.5)
            auditor = await stack.enter_async_context(auditing(self.database, rest=0.02, policies=policies))
            async with connect(self.database) as host:
                for plan in schedule.plans:
                    await self._begin(host, plan)
            tenants = {campaign: plan.tenant for campaign, plan in self.campaigns.items()}
            readers = await stack.enter_async_context(reading(self.database, tenants, schedule.seed))
            as_workers = Settings(OTA_TICK_INTERVAL=float(settings["OTA_TICK_INTERVAL"]))
            askers = await stack.enter_async_context(asking(self.database, tenants, as_workers, schedule.seed))
            viewers = await stack.enter_async_context(
                viewing(self.database, self.folder, self.campaigns, schedule.seed)
            )
            watch = await stack.enter_async_context(watching(self.database, lease))
            mqtt_proxy = await stack.enter_async_context(proxy(self.mosquitto.url))
            mqtt_proxy.rules.append(watch.note)
            settings["MQTT_BROKER_URL"] = mqtt_proxy.url if schedule.link else self.mosquitto.url
            obstructing = asyncio.create_task(self._obstruct(mqtt_proxy, fleet))
            beside = [obstructing, asyncio.create_task(self._ask(fleet))]
            try:
                workers = await stack.enter_async_context(
                    running_workers(settings, self.folder, schedule.workers, schedule.faults)
                )
                beside.append(asyncio.create_task(self._replace_ended(workers)))
                acting = [self._operate(each, fleet) for each in self.operators.values()]
                await asyncio.gather(self._trouble(workers, fleet), self._abort(fleet), obstructing, *acting)
                async with letting_end(list(self.operators.values())):
                    await self._check(fleet, workers)
                if not self._delays_commands():
                    self.verdict.problems += await checks.late_commands(self.database, fleet, policies.quarantines())
                async with connect(self.database) as host:
                    self.verdict.problems += await _differences([*readers, *viewers], host)
                for asker in askers:
                    self.verdict.problems += asker.wrong
                    if not asker.answers:
                        self.verdict.problems.append("nobody was told why devices wait")
                self.verdict.problems += watch.violations()
                self.verdict.deaths = workers.killed()
            finally:
                for task in beside:
                    await end(task)
                    if (error := failure_of(task)) is not None:
                        self.verdict.problems.append(f"the harness failed: {type(error).__name__}: {error}")
                self.verdict.commands, self.verdict.reports = len(fleet.commands), len(fleet.accepted)
                self.verdict.snapshots = auditor.snapshots
                self.verdict.events = sum(len(reader.seen) for reader in readers)
                self.verdict.overviews = sum(viewer.overviews for viewer in viewers)

    async def _begin(self, host: Connection, plan: Plan) -> None:
        if plan.documented:
            await self._begin_documented(host, plan)
            return
        deadlines: dict[str, object] = {"progress_timeout": DEADLINE, "device_timeout": TIMEOUT}
        campaign = await insert_campaign(
            host,
            plan.devices,
            tenant=plan.tenant,
            rollout_rate=plan.rate,
            rollout_strategy="linear" if plan.canary_percent is None else "canary",
            canary_percent=plan.canary_percent,
            max_in_flight=plan.max_in_flight,
            abort_threshold=0.1 if plan.all_bad else 1.0,
            **(deadlines if self.schedule.long_pause else {}),
        )
        self.campaigns[campaign] = plan
        if plan.all_bad:
            self.behaviour.bad |= {campaign}

    async def _begin_documented(self, host: Connection, plan: Plan) -> None:
        dice = random.Random(f"{self.schedule.seed} {plan.tenant}")
        loses = self.schedule.forgetful
        document = draw_document(dice, datetime.now(UTC), all_bad=plan.all_bad, loses=loses)
        async with host.transaction():
            campaign = await insert_campaign(host, plan.devices, tenant=plan.tenant, policy_revision=1)
            await insert_document(host, plan.tenant, campaign, document)
        self.campaigns[campaign] = plan
        self.operators[campaign] = Operators(self.database, plan.tenant, campaign, document, dice)
        if not loses:
            self.behaviour.attempts |= {campaign}
        if plan.all_bad:
            self.behaviour.bad |= {campaign}
        if plan.is_cancelled and self.schedule.seed >= ALL_ACTS_FROM:
            self.behaviour.to_be_cancelled |= {campaign}

    def _stops_workers(self) -> bool:
        """Whether a worker may be stopped between reading a gate and its claim."""
        faults = [each for each in self.schedule.faults if each is not None]
        return any(trouble is Trouble.STOP for trouble, _ in self.schedule.troubles) or any(
            each.effect in {Effect.FREEZE, Effect.PAUSE} for each in faults
        )

    def _delays_commands(self) -> bool:
        """Whether a worker or the broker may keep commands for longer than a gate needs to stop them."""
        of_broker = {Trouble.BROKER_CRASH, Trouble.BROKER_RESTART}
        return (
            bool(self.schedule.link)
            or self._stops_workers()
            or any(trouble in of_broker for trouble, _ in self.schedule.troubles)
        )

    async def _operate(self, operators: Operators, fleet: Devices) -> None:
        for act in self.schedule.acts:
            await _wait_for_more_commands(fleet)
            await operators.act(act, loses=self.schedule.forgetful)

    async def _replace_ended(self, workers: Workers) -> None:
        while True:
            await workers.replace_ended()
            await asyncio.sleep(0.1)

    async def _ask(self, fleet: Devices) -> None:
        while True:
            question(fleet, self.dice)
            await asyncio.sleep(ASK_EVERY)

    async def _obstruct(self, mqtt_proxy: Proxy, fleet: Devices) -> None:
        """Play the faults between workers and broker. Some start immediately, the others one after another."""
        link = Link(mqtt_proxy, self.schedule.seed, self._neighbours_done)
        from_start = [asyncio.create_task(link.play(each)) for each in self.schedule.link if each.from_start]
        try:
            for trouble in self.schedule.link:
                if not trouble.from_start:
                    await _wait_for_more_commands(fleet)
                    await link.play(trouble)
            await asyncio.gather(*from_start)
        finally:
            for task in from_start:
                await end(task)

    async def _neighbours_done(self, topics: tuple[str, ...]) -> None:
        """Wait until only devices with these topics are left in the first campaign."""
        campaign, plan = next(iter(self.campaigns.items()))
        held_up = [f"dev-{n}" for n in range(plan.devices + 1) if command_topic(plan.tenant, f"dev-{n}") in topics]

        async def done() -> bool:
            try:
                async with connect(self.database) as host:
                    left: int = await host.fetchval(
                        "SELECT count(*) FROM ota_device_status WHERE campaign_id = $1 AND completed_at IS NULL"
                        " AND status <> 'SKIPPED' AND device_id <> ALL ($2)",
                        campaign,
                        held_up,
                    )
            except CONNECTION_TROUBLE:
                return False  # The database is unavailable at the moment.
            await asyncio.sleep(0.1)
            return not left

        await eventually(done, timeout=MAX_SECONDS, what=f"devices beside {held_up} to end")

    async def _trouble(self, workers: Workers, fleet: Devices) -> None:
        if self.schedule.long_pause:
            await self._pause_for_long(fleet)
        for trouble, whom in self.schedule.troubles:
            await _wait_for_more_commands(fleet)
            await self._strike(trouble, whom, workers)

    async def _pause_for_long(self, fleet: Devices) -> None:
        """Pause while devices are in progress, for longer than any device timeout. Then start the campaigns again."""
        self.behaviour.hold_reports()
        await _wait_for_more_commands(fleet)
        await self._move("RUNNING", "PAUSED")
        await asyncio.sleep(LONG_PAUSE)
        await self._move("PAUSED", "RUNNING")
        self.behaviour.send_held_reports(fleet)

    async def _strike(self, trouble: Trouble, whom: int, workers: Workers) -> None:
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
        await asyncio.to_thread(self.databases.server.stop, how)
        await asyncio.to_thread(self.databases.server.start)

    async def _move(self, before: str, after: str) -> None:
        async with connect(self.database) as host:
            await host.execute("UPDATE ota_campaigns SET status = $2 WHERE status = $1", before, after)

    async def _abort(self, fleet: Devices) -> None:
        for campaign, plan in self.campaigns.items():
            if plan.ends == "ABORTED" and not plan.all_bad:
                if campaign in self.operators:
                    await self._cancel(fleet, campaign, plan)
                    continue
                enough = min(self.schedule.abort_after, plan.devices // 2)
                await eventually(lambda: len(fleet.commands_of(campaign, plan.tenant)) >= enough, timeout=MAX_SECONDS)  # noqa: B023
                await eventually(lambda: self._aborted(campaign), timeout=MAX_SECONDS)  # noqa: B023

    async def _cancel(self, fleet: Devices, campaign: int, plan: Plan) -> None:
        """Cancel a campaign under a document when it has sent commands, or could send none for a while."""
        await _wait_for_more_commands(fleet)
        since = time.monotonic()
        await eventually(
            lambda: fleet.commands_of(campaign, plan.tenant) or time.monotonic() > since + LONGEST_START_SECONDS,
            timeout=MAX_SECONDS,
        )
        await self.operators[campaign].cancel(halted=self.schedule.cancel_under_halt)

    async def _aborted(self, campaign: int) -> bool:
        try:
            async with connect(self.database) as host:
                await host.execute("UPDATE ota_campaigns SET status = 'ABORTED' WHERE id = $1", campaign)
        except CONNECTION_TROUBLE:
            return False  # The database is unavailable at the moment.
        return True

    async def _check(self, fleet: Devices, workers: Workers) -> None:
        """Check that each campaign ends as planned, and that its state follows from the reports the broker accepted."""
        wrong = self.verdict.problems
        async with connect(self.database) as host:
            for campaign, plan in self.campaigns.items():
                wrong += await checks.ended(host, campaign, plan, within=MAX_SECONDS)
            await fleet.wait_until_delivered()
            wrong += await checks.differences(host, fleet, self.campaigns, forgetful=self.schedule.forgetful)
        wrong += checks.bodies(fleet)
        wrong += await checks.logs(workers)


async def _differences(watchers: Sequence[EventReader | Viewer], host: Connection) -> list[str]:
    return [problem for each in watchers for problem in await each.differences(host)]


async def _wait_for_more_commands(fleet: Devices) -> None:
    """Wait for some more commands, or for a while."""
    before, since = len(fleet.commands), time.monotonic()
    await eventually(lambda: len(fleet.commands) > before + 8 or time.monotonic() > since + 1, timeout=3)
