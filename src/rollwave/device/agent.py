"""The reference device: takes commands, fetches, installs, reports, and picks up after any restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import httpx2

from rollwave.device import decide as rules
from rollwave.device.connection import keep_connected, together
from rollwave.device.decide import Job, Verdict, decide
from rollwave.device.download import Limits, fetch
from rollwave.device.install import Installer
from rollwave.device.memory import Memory
from rollwave.device.outbox import Outbox, Outgoing
from rollwave.device.progress import Throttle
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import InvalidInput, RollwaveError
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import NOTHING_TO_DO, decode_command
from rollwave.mqtt.topics import ask_topic, command_topic, status_topic

SIGN_OF_LIFE = 60.0
"""Seconds of a long download or installation after which the last report is given again."""

_REDIRECTS = 5
_log = get_logger("device")


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """Who the device is, where it keeps what it remembers, and how it installs."""

    tenant_id: str
    device_id: str
    directory: Path
    install: str = ""
    install_timeout: float = 600.0
    limits: Limits = field(default_factory=Limits)


class Agent:
    """One device. :meth:`run` is its life."""

    def __init__(self, broker: Broker, plan: AgentPlan) -> None:
        """Read what the device remembers.

        Raises:
            ConfigurationError: the state directory or the install command cannot be used.
        """
        self._broker = broker
        self._plan = plan
        self._memory = Memory(plan.directory)
        self._installer = Installer(plan.install, timeout=plan.install_timeout)
        self._outbox = Outbox(status_topic(plan.tenant_id, plan.device_id))
        self.state = self._memory.load()
        """What the device remembers."""
        self.connected = False
        """Whether it can be sent commands now."""
        self._work = asyncio.Event()

    async def run(self) -> NoReturn:
        """Serve until cancelled. A job cut short is resumed by the next run on the same directory."""
        for job in reversed(self.state.finished):
            if not job.delivered:
                self._outbox.put(Outgoing.of(job))
        if self.state.running:
            self._work.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._perform())
            tasks.create_task(self._show_life())
            client_id = f"{self._plan.tenant_id}:{self._plan.device_id}"
            await keep_connected(self._broker, client_id, self._serve, persistent=True, manual_ack=True)

    async def _serve(self, session: Session) -> None:
        topic = command_topic(self._plan.tenant_id, self._plan.device_id)
        await session.subscribe(topic)
        if not session.session_present:  # whatever was waiting here for this device is gone
            await session.publish(ask_topic(self._plan.tenant_id, self._plan.device_id), b"")
        _log.info("device_connected", topic=topic, session_present=session.session_present)
        self.connected = True
        try:
            await together(self._receive(session), self._send(session))
        finally:
            self.connected = False

    async def _receive(self, session: Session) -> None:
        async for incoming in session.messages():
            self._take(incoming)
            await session.acknowledge(incoming)

    async def _send(self, session: Session) -> NoReturn:
        while True:
            report = await self._outbox.send_next(session)
            if report.final:
                self._remember(rules.delivered(self.state, report.campaign_id, report.attempt))

    def _take(self, incoming: Incoming) -> None:
        if incoming.payload == NOTHING_TO_DO:
            return
        try:
            command = decode_command(incoming.payload)
        except InvalidInput as error:
            _log.warning("device_command_unreadable", reason=str(error))
            return
        decision = decide(self.state, command, incoming.attempt, retained=incoming.retain)
        _log.info(
            "device_command",
            campaign_id=command.campaign_id,
            attempt=incoming.attempt,
            verdict=decision.verdict.value,
            reason=decision.reason,
        )
        self._remember(decision.state)
        match decision.verdict:
            case Verdict.START:
                self._work.set()
            case Verdict.ANSWER if decision.job:
                self._outbox.put(Outgoing.of(decision.job))

    async def _perform(self) -> NoReturn:
        async with httpx2.AsyncClient(max_redirects=_REDIRECTS, timeout=30.0) as client:
            while True:
                await self._work.wait()
                while self.state.running:
                    await self._run_job(self.state.running, client)
                self._work.clear()

    async def _run_job(self, job: Job, client: httpx2.AsyncClient) -> None:
        error = None
        try:
            if job.status is not ExecutionStatus.INSTALLING or not self._memory.artifact.exists():
                await self._download(job, client)
            self._advance(ExecutionStatus.INSTALLING)
            await self._installer.install(self._memory.artifact, job.command)
        except (RollwaveError, OSError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        outcome = ExecutionStatus.FAILED if error else ExecutionStatus.SUCCESS
        self._remember(rules.finish(self.state, outcome, error))
        _log.info("device_finished", campaign_id=job.command.campaign_id, outcome=outcome.value, reason=error)
        self._outbox.put(Outgoing.of(self.state.finished[0]))

    async def _download(self, job: Job, client: httpx2.AsyncClient) -> None:
        self._advance(ExecutionStatus.DOWNLOADING, progress=0)
        throttle, clock = Throttle(), asyncio.get_running_loop().time

        def report(done: int, total: int | None) -> None:
            percent = throttle.due(done, total, clock())
            if percent is not None and self.state.running:
                self._outbox.put(Outgoing.of(self.state.running, percent))

        command = job.command
        await fetch(
            client,
            command.firmware_url,
            self._memory.artifact,
            checksum=command.checksum,
            limits=self._plan.limits,
            on_progress=report,
        )

    def _advance(self, status: ExecutionStatus, progress: int | None = None) -> None:
        self._remember(rules.advance(self.state, status))
        if self.state.running:
            self._outbox.put(Outgoing.of(self.state.running, progress))

    async def _show_life(self) -> NoReturn:
        while True:
            await asyncio.sleep(SIGN_OF_LIFE)
            if self.state.running:
                self._outbox.put(Outgoing.of(self.state.running))

    def _remember(self, state: rules.State) -> None:
        if state != self.state:
            self._memory.save(state)
            self.state = state
