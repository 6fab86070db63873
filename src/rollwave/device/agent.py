"""The reference device: receives commands, downloads, installs and reports. It resumes after a restart."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rollwave.device import decide as rules
from rollwave.device.codes import AGENT, code_of
from rollwave.device.connection import keep_connected, run_until_first
from rollwave.device.decide import Job, Verdict, decide
from rollwave.device.download import DownloadRefused, Limits, fetch, http_client, matches
from rollwave.device.expected import ExpectedArtifact
from rollwave.device.install import Installer
from rollwave.device.memory import Memory, StateNotSaved
from rollwave.device.outbox import Outbox, Outgoing
from rollwave.device.partial import Partial
from rollwave.device.progress import Throttle
from rollwave.domain.execution import ExecutionStatus
from rollwave.errors import InvalidInput, RollwaveError
from rollwave.log import get_logger
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Incoming, Session
from rollwave.mqtt.payload import NOTHING_TO_DO, Command, decode_command, read_cancel
from rollwave.mqtt.topics import ask_topic, command_topic, status_topic
from rollwave.tasks import end

REPEAT_REPORT_SECONDS = 60.0
"""Time after which the last report is repeated during a long download or installation, in seconds."""

STOP_SECONDS = 15.0
"""Maximum time for a job to end when the agent is stopped, in seconds."""

_log = get_logger("device")


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """The device's ids, the directory of its state, and how it installs. Times are in seconds."""

    tenant_id: str
    device_id: str
    directory: Path
    install: str = ""
    install_timeout: float = 600.0
    limits: Limits = field(default_factory=Limits)
    answer_timeout: float = 60.0
    """Maximum time to wait for the engine's answer to a question, in seconds."""


class Agent:
    """One device. :meth:`run` runs it."""

    def __init__(self, broker: Broker, plan: AgentPlan) -> None:
        """Load the device's saved state.

        Raises:
            ConfigurationError: the state directory or the install command cannot be used.
        """
        self._broker = broker
        self._plan = plan
        self._memory = Memory(plan.directory)
        self._installer = Installer(plan.install, timeout=plan.install_timeout)
        self._outbox = Outbox(status_topic(plan.tenant_id, plan.device_id))
        self.state = self._memory.load()
        """The device's current state. It is saved on every change."""
        self.connected = False
        """Whether the device can receive commands now."""
        self._work = asyncio.Event()
        self._question = asyncio.Event()
        self._answer: asyncio.Future[bool] | None = None
        """The engine's answer to a question: whether the running job is still wanted. None: no question is open."""
        self._saved = True
        self._resumed = self.state.running
        """The job that an earlier run had begun: it does not wait (``start_within``) again."""
        self._running: asyncio.Task[None] | None = None
        """The task of the running job."""

    async def run(self) -> NoReturn:
        """Run until cancelled. The next run with the same directory resumes an interrupted job."""
        for job in reversed(self.state.finished):
            if not job.delivered:
                self._outbox.put(Outgoing.of(job))
        if self.state.running:
            self._work.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._perform())
            tasks.create_task(self._repeat_reports())
            client_id = f"{self._plan.tenant_id}:{self._plan.device_id}"
            await keep_connected(self._broker, client_id, self._serve, persistent=True, manual_ack=True)

    async def _serve(self, session: Session) -> None:
        topic = command_topic(self._plan.tenant_id, self._plan.device_id)
        await session.subscribe(topic)
        if not session.session_present:  # the broker has lost any command that waited for this device
            self._question.set()
        _log.info("device_connected", topic=topic, session_present=session.session_present)
        self.connected = True
        try:
            await run_until_first(self._receive(session), self._send(session), self._ask(session))
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
        """Send a question to the engine when one is needed. If the session is lost, the next session sends it again."""
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
        cancelled = read_cancel(incoming.payload)
        if cancelled is not None:
            self._cancel(cancelled, retained=incoming.retain)
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

    def _cancel(self, campaign_id: int, *, retained: bool) -> None:
        before, decision = self.state.running, rules.cancel(self.state, campaign_id, retained=retained)
        _log.info("device_cancel", campaign_id=campaign_id, verdict=decision.verdict.value, reason=decision.reason)
        if decision.verdict is not Verdict.CANCEL or decision.job is None:
            return
        self._remember(decision.state)
        self._outbox.put(Outgoing.of(decision.job))
        if self.state.running is not before and self._running is not None:
            self._running.cancel()

    def _answered(self, *, wanted: bool) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(wanted)

    async def _perform(self) -> NoReturn:
        while True:
            await self._work.wait()
            while self.state.running:
                await self._run_until_cancelled(self.state.running)
            self._work.clear()

    async def _run_until_cancelled(self, job: Job) -> None:
        """Run a job to its end. If a cancel command ends it before, delete what it has downloaded."""
        self._running = asyncio.create_task(self._run_job(job))
        try:
            await asyncio.wait({self._running})
        finally:
            await end(self._running, within=STOP_SECONDS)  # when the agent itself is cancelled
        if not self._running.cancelled():
            self._running.result()
        if rules.was_cancelled(self.state, job):
            with suppress(OSError):
                Partial(self._memory.artifact).discard()
        self._running = None

    async def _run_job(self, job: Job) -> None:
        error = code = None
        try:
            if job is not self._resumed:
                await asyncio.sleep(random.uniform(0.0, job.command.start_within))  # noqa: S311  spreads load only
            if job.status is not ExecutionStatus.INSTALLING or not await self._is_fetched(job.command):
                await self._download()
            self._advance(ExecutionStatus.INSTALLING)
            await self._installer.install(self._memory.artifact, job.command)
        except (RollwaveError, OSError, ValueError) as failure:
            error, code = str(failure) or type(failure).__name__, code_of(failure)
        except Exception as failure:  # noqa: BLE001  otherwise the agent would crash at each start, without a report
            _log.exception("device_job_broken", campaign_id=job.command.campaign_id)
            error, code = f"error in the agent: {type(failure).__name__}: {failure}", AGENT
        if rules.was_cancelled(self.state, job):  # in the moment in which it failed
            return
        outcome = ExecutionStatus.FAILED if error else ExecutionStatus.SUCCESS
        self._remember(rules.finish(self.state, outcome, error, code))
        finished = self.state.finished[0]
        _log.info("device_finished", campaign_id=job.command.campaign_id, outcome=outcome.value, reason=finished.error)
        self._outbox.put(Outgoing.of(finished))

    async def _is_fetched(self, command: Command) -> bool:
        """Whether the artifact from before a restart is complete: a loss of power may damage it."""
        return await asyncio.to_thread(matches, ExpectedArtifact.of(command), self._memory.artifact)

    async def _download(self) -> None:
        """Download the artifact of the running job.

        If the server refuses it, ask the engine whether the job is still wanted, and try once more.
        """
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

        expected = ExpectedArtifact.of(self.state.running.command)
        async with http_client() as client:
            await fetch(client, expected, self._memory.artifact, limits=self._plan.limits, on_progress=report)

    async def _is_wanted(self) -> bool:
        """Ask the engine whether the running job is still wanted. True also if there is no answer.

        An answer may contain a new URL for the job, which is stored before this returns.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._question.set()
        try:
            async with asyncio.timeout(self._plan.answer_timeout):
                return await self._answer
        except TimeoutError:
            return True
        finally:
            self._answer = None

    def _advance(self, status: ExecutionStatus, progress: int | None = None) -> None:
        """Move the running job to ``status``, save that, and report it.

        Raises:
            StateNotSaved: it cannot be saved. The job must stop, as a restart would not know how far it had come.
        """
        self._remember(rules.advance(self.state, status), needed=True)
        if self.state.running:
            self._outbox.put(Outgoing.of(self.state.running, progress))

    async def _repeat_reports(self) -> NoReturn:
        while True:
            await asyncio.sleep(REPEAT_REPORT_SECONDS)
            self._remember(self.state)
            if self.state.running:
                self._outbox.put(Outgoing.of(self.state.running))

    def _remember(self, state: rules.State, *, needed: bool = False) -> None:
        """Make ``state`` the current state, and save it. If saving fails, the next change saves it.

        Raises:
            StateNotSaved: it cannot be saved, and ``needed`` is true.
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
