"""Real worker processes, forked from one that has imported everything. They can be killed, or meet injected faults."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from rollwave.cli.main import run
from rollwave.engine.failpoints import arm
from rollwave.engine.upkeep.targeting import Targeter
from rollwave.store import overdue
from tests.chaos.injected_faults import ArmedFault, InjectedFault
from tests.support import environment, eventually

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.chaos.preloaded"])


PLACED_AT_ONCE = 7
"""Devices that a worker places by a policy document in one transaction, so that workers die between two of them."""

HELD_SECONDS = 0.9
"""How long a device of a closed segment is held before it is looked at again: an hour is too long for a schedule.

Shorter than a lease, by which the auditor knows a claim.
"""

NO_DATABASE = "error: PostgreSQL cannot be reached"


def _work(settings: Mapping[str, str], log: str, fault: InjectedFault | None) -> None:
    """Run ``rollwave worker`` in the forked process."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    wanted = environment(**settings)
    os.environ.clear()
    os.environ.update(wanted)
    defaults = Targeter.__init__.__kwdefaults__
    assert defaults is not None
    defaults["batch"] = PLACED_AT_ONCE
    vars(overdue).update(HELD_SECONDS=HELD_SECONDS, MAX_HELD_SECONDS=HELD_SECONDS)
    if fault is not None:
        arm(ArmedFault(fault))
    sys.argv = ["rollwave", "worker"]
    run()


@dataclass
class Workers:
    """Workers on one database and one broker. :meth:`replace_ended` replaces those that ended.

    Each started worker meets the next of ``faults``, while there are any.
    """

    settings: Mapping[str, str]
    folder: Path
    wanted: int
    faults: Iterator[InjectedFault | None] = field(default_factory=lambda: iter(()))
    _running: dict[ForkServerProcess, Path] = field(default_factory=dict)
    _ended: list[tuple[int | None, Path]] = field(default_factory=list)
    """How they ended, and their logs."""
    _started: int = 0

    async def start_one(self) -> None:
        """Start a worker, and wait until it has looked at the campaigns once or has ended."""
        self._started += 1
        fault = next(self.faults, None)
        log = self.folder / f"worker-{self._started}.log"
        process = forks.Process(target=_work, args=(dict(self.settings), str(log), fault), daemon=True)
        process.start()
        self._running[process] = log

        def settled() -> bool:
            return not process.is_alive() or (log.exists() and "ota_" in log.read_text())

        await eventually(settled, timeout=30, what=f"{log} to say that it works")

    async def replace_ended(self) -> None:
        """Start a worker for each that has ended."""
        self.note_ended()
        while len(self._running) < self.wanted:
            await self.start_one()

    def note_ended(self) -> None:
        """Record the exit codes of workers that have ended."""
        for each in [each for each in self._running if not each.is_alive()]:
            each.join()
            self._ended.append((each.exitcode, self._running.pop(each)))

    def killed(self) -> int:
        """The number of workers ended by SIGKILL, from outside or by a fault."""
        return sum(code == -signal.SIGKILL for code, _ in self._ended)

    def unexpected_ends(self) -> list[str]:
        """The last log lines of workers that ended without SIGKILL or SIGTERM.

        A worker that finds no database at its start logs this and ends: its host would start it again.
        """
        asked = (0, -signal.SIGKILL, -signal.SIGTERM)  # The database became unavailable while the worker started.
        logs = [log for code, log in self._ended if code not in asked and log.exists()]
        return [last for log in logs if NO_DATABASE not in (last := log.read_text()[-500:])]

    def logs_of_survivors(self) -> list[str]:
        """The logs of workers that were not killed. The faults they met are in the log, now or soon."""
        ended = [log for code, log in self._ended if code != -signal.SIGKILL]
        alive = [log for process, log in self._running.items() if process.is_alive()]
        return [log.read_text() for log in (*ended, *alive) if log.exists()]

    async def signal(self, which: int, number: signal.Signals) -> None:
        """Send a signal to one worker. After SIGKILL and SIGTERM, wait until it has ended."""
        if not self._running:
            return
        process = list(self._running)[which % len(self._running)]
        if process.pid is None or not process.is_alive():
            return
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            await eventually(lambda: not process.is_alive(), timeout=30, what=f"the worker to end on {number.name}")

    def wake(self) -> None:
        """Send SIGCONT to every worker."""
        for each in self._running:
            if each.pid is not None and each.is_alive():
                os.kill(each.pid, signal.SIGCONT)

    def output(self) -> str:
        """All log output of the workers."""
        return "".join(each.read_text() for each in sorted(self.folder.glob("worker-*.log")))

    def kill_all(self) -> None:
        """Kill the workers that still run."""
        for each in self._running:
            each.kill()
            each.join()


@asynccontextmanager
async def running_workers(
    settings: Mapping[str, str], folder: Path, wanted: int, faults: Iterable[InjectedFault | None] = ()
) -> AsyncIterator[Workers]:
    """Run ``wanted`` workers for the block, and kill them at its end."""
    workers = Workers(settings, folder, wanted, iter(faults))
    try:
        await asyncio.gather(*(workers.start_one() for _ in range(wanted)))
        yield workers
    finally:
        await asyncio.to_thread(workers.kill_all)
