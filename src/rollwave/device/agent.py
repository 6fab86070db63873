"""The reference device: takes commands, fetches, installs, reports, and picks up after any restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import httpx2

from rollwave.device import decide as rules
from rollwave.device.connection import keep_connected, together
from rollwave.device.decide import Job, Verdict, decide
from rollwave.device.download import DownloadRefused, Limits, fetch, matches
from rollwave.device.install import Installer
from rollwave.device.memory import Memory, StateNotSaved
from rollwave.device.outbox import Outbox, Outgoing
from rollwave.device.progress import Throttle
from rollwave.device.promise import DownloadFailed, Promise
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import InvalidInput, RollwaveError
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import NOTHING_TO_DO, Command, decode_command
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
    answer_within: float = 60.0
    """Seconds that the engine may take to answer a question."""


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
        self._question = asyncio.Event()
        self._answer: asyncio.Future[bool] | None = None
        """Whether the engine wants what is running, once it has answered; None: nobody waits for that."""
        self._saved = True

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
            self._question.set()
        _log.info("device_connected", topic=topic, session_present=session.session_present)
        self.connected = True
        try:
            await together(self._receive(session), self._send(session), self._ask(session))
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

    async def _ask(self, session: Session) -> None:
        """Ask what to do whenever that is wanted. A question that a lost session cut off is asked in the next one."""
        topic = ask_topic(self._plan.tenant_id, self._plan.device_id)
        while True:
            await self._question.wait()
            receipt = await session.publish(topic, b"")
            await receipt.wait()
            if not (receipt.taken or receipt.refused):
                return
            self._question.clear()

    def _take(self, incoming: Incoming) -> None:
        if incoming.payload == NOTHING_TO_DO:
            self._answered(wanted=False)
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
        if self.state.running and self.state.running.command is command:
            self._answered(wanted=True)
        match decision.verdict:
            case Verdict.START:
                self._work.set()
            case Verdict.ANSWER if decision.job:
                self._outbox.put(Outgoing.of(decision.job))

    def _answered(self, *, wanted: bool) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(wanted)

    async def _perform(self) -> NoReturn:
        while True:
            await self._work.wait()
            while self.state.running:
                await self._run_job(self.state.running)
            self._work.clear()

    async def _run_job(self, job: Job) -> None:
        error = None
        try:
            if job.status is not ExecutionStatus.INSTALLING or not await self._is_fetched(job.command):
                await self._download()
            self._advance(ExecutionStatus.INSTALLING)
            await self._installer.install(self._memory.artifact, job.command)
        except (RollwaveError, OSError, ValueError) as failure:
            error = str(failure) or type(failure).__name__
        except Exception as failure:  # noqa: BLE001  dead of it, the device would say nothing, and die at each start
            _log.exception("device_job_broken", campaign_id=job.command.campaign_id)
            error = f"error in the agent: {type(failure).__name__}: {failure}"
        outcome = ExecutionStatus.FAILED if error else ExecutionStatus.SUCCESS
        self._remember(rules.finish(self.state, outcome, error))
        finished = self.state.finished[0]
        _log.info("device_finished", campaign_id=job.command.campaign_id, outcome=outcome.value, reason=finished.error)
        self._outbox.put(Outgoing.of(finished))

    async def _is_fetched(self, command: Command) -> bool:
        """Whether what was fetched before a restart is still there: a loss of power may have cost some of it."""
        return await asyncio.to_thread(matches, Promise.of(command), self._memory.artifact)

    async def _download(self) -> None:
        """Fetch the running job's artifact. One that the server refuses is asked about, and tried once more."""
        self._advance(ExecutionStatus.DOWNLOADING, progress=0)
        try:
            await self._fetch()
        except DownloadRefused as refusal:
            _log.warning("device_download_refused", reason=str(refusal))
            if not await self._is_wanted():
                raise
            await self._fetch()

    async def _fetch(self) -> None:
        assert self.state.running
        throttle, clock = Throttle(), asyncio.get_running_loop().time

        def report(done: int, total: int | None) -> None:
            percent = throttle.due(done, total, clock())
            if percent is not None and self.state.running:
                self._outbox.put(Outgoing.of(self.state.running, percent))

        promise = Promise.of(self.state.running.command)
        async with _http_client() as client:
            await fetch(client, promise, self._memory.artifact, limits=self._plan.limits, on_progress=report)

    async def _is_wanted(self) -> bool:
        """Ask whether this device still has to do what it does, and in which words. True too where nobody answers."""
        self._answer = asyncio.get_running_loop().create_future()
        self._question.set()
        try:
            async with asyncio.timeout(self._plan.answer_within):
                return await self._answer
        except TimeoutError:
            return True
        finally:
            self._answer = None

    def _advance(self, status: ExecutionStatus, progress: int | None = None) -> None:
        """Come to ``status``.

        Raises:
            StateNotSaved: a device that would not remember it after a restart must not go on.
        """
        self._remember(rules.advance(self.state, status), needed=True)
        if self.state.running:
            self._outbox.put(Outgoing.of(self.state.running, progress))

    async def _show_life(self) -> NoReturn:
        while True:
            await asyncio.sleep(SIGN_OF_LIFE)
            self._remember(self.state)
            if self.state.running:
                self._outbox.put(Outgoing.of(self.state.running))

    def _remember(self, state: rules.State, *, needed: bool = False) -> None:
        """Save ``state``, and go by it. Where it cannot be saved that is tried again with the next one.

        Raises:
            StateNotSaved: it cannot, and is ``needed``.
        """
        if state == self.state and self._saved:
            return
        self.state = state
        try:
            self._memory.save(state)
        except StateNotSaved as error:
            if self._saved:
                _log.warning("device_state_not_saved", reason=str(error))
            self._saved = False
            if needed:
                raise
        else:
            self._saved = True


@asynccontextmanager
async def _http_client() -> AsyncIterator[httpx2.AsyncClient]:
    """One that goes by the proxies and certificates which the environment names.

    Raises:
        DownloadFailed: those cannot be used.
    """
    try:
        client = httpx2.AsyncClient(max_redirects=_REDIRECTS, timeout=30.0)
    except (ValueError, OSError, ImportError) as error:
        raise DownloadFailed(f"cannot download: the proxy or certificates of the environment: {error}") from error
    async with client:
        yield client
