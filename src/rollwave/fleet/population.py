"""The simulated devices. Each keeps a state and decides as the reference device does, and runs its jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx2

from rollwave.device import decide as rules
from rollwave.device.decide import Decision, Job, State, Verdict
from rollwave.device.outbox import Outgoing
from rollwave.domain.execution import TERMINAL
from rollwave.fleet.faults import Fault, FaultRates, Profile, profile
from rollwave.fleet.job import Step, job_steps
from rollwave.fleet.tally import Ledger
from rollwave.fleet.transfer import transfer
from rollwave.fleet.uplink import DeviceReport
from rollwave.log import get_logger
from rollwave.mqtt.payload import Command

_MAX_DOWNLOADS_IN_PARALLEL = 32
_log = get_logger("fleet")

Behaviour = Callable[[str, Command], Fault | None]
"""The fault that a command causes on a device, given its id. None: the device's own profile decides."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Which devices are simulated, and how they behave.

    ``step_delay``: average extra time of each step (download, install), in seconds. ``download``: whether artifacts are
    downloaded. ``connections``: number of connections to the broker, at least two.
    """

    tenant_id: str
    device_ids: Sequence[str]
    seed: int = 1
    faults: FaultRates = field(default_factory=FaultRates)
    download: bool = True
    step_delay: float = 0.0
    behaviour: Behaviour | None = None
    connections: int = 4


class Population:
    """The states of all devices, and a task for each device that runs a job."""

    def __init__(self, plan: FleetPlan, ledger: Ledger, send: Callable[[DeviceReport], None]) -> None:
        self._plan = plan
        self._ledger = ledger
        self._send = send
        self._states: dict[str, State] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._downloads = asyncio.Semaphore(_MAX_DOWNLOADS_IN_PARALLEL)
        # No proxy from the environment: a simulation downloads from a local server.
        self._client = httpx2.AsyncClient(timeout=30.0, follow_redirects=True, trust_env=False)

    async def aclose(self) -> None:
        """Stop all devices."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def take(self, device_id: str, command: Command, attempt: int | None, *, retained: bool) -> None:
        """Handle a command for ``device_id``."""
        self._ledger.received[device_id] += 1
        decision = rules.decide(self._states.get(device_id, State()), command, attempt, retained=retained)
        self._states[device_id] = decision.state
        if decision.verdict is Verdict.START:
            self._begin(device_id)
        elif decision.verdict is not Verdict.WAIT:
            self._ledger.duplicates += 1
            self._answer(device_id, decision)

    def cancel(self, device_id: str, campaign_id: int, *, retained: bool) -> None:
        """Handle a cancel command for ``device_id``."""
        self._ledger.cancels[device_id] += 1
        before = self._states.get(device_id, State())
        decision = rules.cancel(before, campaign_id, retained=retained)
        if decision.verdict is not Verdict.CANCEL:
            return
        self._states[device_id] = decision.state
        self._answer(device_id, decision)
        if decision.state.running is not before.running:
            if (task := self._tasks.pop(device_id, None)) is not None:
                task.cancel()
            if decision.state.running:
                self._begin(device_id)

    def _answer(self, device_id: str, decision: Decision) -> None:
        if decision.job:
            self._report(device_id, Outgoing.of(decision.job))

    def _begin(self, device_id: str) -> None:
        task = asyncio.create_task(self._work(device_id))
        self._tasks[device_id] = task
        task.add_done_callback(partial(self._ended, device_id))

    def _ended(self, device_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(device_id) is task:
            del self._tasks[device_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("fleet_device_broken", exc_info=error)

    async def _work(self, device_id: str) -> None:
        while job := self._states[device_id].running:
            await self._run(device_id, job)

    async def _run(self, device_id: str, job: Job) -> None:
        device = self._profile(device_id)
        reports: list[Outgoing] = []
        if job.command.start_within:
            chosen = random.Random(f"{self._plan.seed}:{device_id}")  # noqa: S311  repeatable, as its faults are
            await asyncio.sleep(chosen.uniform(0.0, job.command.start_within))
        async for step in job_steps(
            self._fault(device_id, job.command, device),
            partial(self._fetch, job.command),
            partial(asyncio.sleep, self._plan.step_delay * device.pace),
        ):
            reports.append(self._advance(device_id, step))
            if not device.reorder:
                self._report(device_id, reports[-1])
        if device.reorder:
            for report in reversed(reports):
                self._report(device_id, report)
        if not (reports and reports[-1].final):
            # A silent device hangs. It forgets its job, as after a restart, so that it can run another attempt.
            self._states[device_id] = State(finished=self._states[device_id].finished)

    def _advance(self, device_id: str, step: Step) -> Outgoing:
        state = self._states[device_id]
        if step.status in TERMINAL:
            state = rules.finish(state, step.status, step.error, step.code)
            job: Job | None = state.finished[0]
        else:
            state = rules.advance(state, step.status)
            job = state.running
        assert job
        self._states[device_id] = state
        return Outgoing.of(job, step.progress)

    async def _fetch(self, command: Command) -> None:
        if self._plan.download:
            async with self._downloads:
                size = await transfer(self._client, command)
            self._ledger.bytes += size
            self._ledger.downloads += 1

    def _report(self, device_id: str, report: Outgoing) -> None:
        for _ in range(2 if self._profile(device_id).duplicate else 1):
            self._send(DeviceReport(device_id, report))

    def _fault(self, device_id: str, command: Command, device: Profile) -> Fault | None:
        behaviour = self._plan.behaviour
        return (behaviour(device_id, command) if behaviour else None) or device.fault

    def _profile(self, device_id: str) -> Profile:
        return profile(self._plan.seed, device_id, self._plan.faults)
