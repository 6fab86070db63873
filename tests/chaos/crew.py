"""Real worker processes, forked from one that has imported everything: to be killed, or to walk into a trap."""

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
from tests.chaos.traps import ArmedTrap, Trap
from tests.support import environment, eventually

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.chaos.preloaded"])


NO_DATABASE = "error: PostgreSQL cannot be reached"


def _work(settings: Mapping[str, str], log: str, trap: Trap | None) -> None:
    """The forked process: ``rollwave worker``, as it is."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    wanted = environment(**settings)
    os.environ.clear()
    os.environ.update(wanted)
    if trap is not None:
        arm(ArmedTrap(trap))
    sys.argv = ["rollwave", "worker"]
    run()


@dataclass
class Crew:
    """Workers on one database and one broker. The dead are replaced by :meth:`mend`.

    Each one hired walks into the next of ``traps``, while there are any.
    """

    settings: Mapping[str, str]
    folder: Path
    wanted: int
    traps: Iterator[Trap | None] = field(default_factory=lambda: iter(()))
    _running: dict[ForkServerProcess, Path] = field(default_factory=dict)
    _gone: list[tuple[int | None, Path]] = field(default_factory=list)
    """How they ended, and their logs."""
    _hired: int = 0

    async def hire(self) -> None:
        """Start one, and wait until it has looked at the campaigns once, or has died trying."""
        self._hired += 1
        trap = next(self.traps, None)
        log = self.folder / f"worker-{self._hired}.log"
        process = _forks.Process(target=_work, args=(dict(self.settings), str(log), trap), daemon=True)
        process.start()
        self._running[process] = log

        def settled() -> bool:
            return not process.is_alive() or (log.exists() and "ota_" in log.read_text())

        await eventually(settled, timeout=30, what=f"{log} to say that it works")

    async def mend(self) -> None:
        """Replace those that are gone."""
        self.bury()
        while len(self._running) < self.wanted:
            await self.hire()

    def bury(self) -> None:
        """Note how those who are gone have ended."""
        for each in [each for each in self._running if not each.is_alive()]:
            each.join()
            self._gone.append((each.exitcode, self._running.pop(each)))

    def killed(self) -> int:
        """How many died by SIGKILL, from outside or in a trap."""
        return sum(code == -signal.SIGKILL for code, _ in self._gone)

    def unasked(self) -> list[str]:
        """Last words of those who ended otherwise than killed, or asked to by SIGTERM.

        One that finds no database when it starts says so and ends: its host starts it again.
        """
        asked = (0, -signal.SIGKILL, -signal.SIGTERM)  # the last one while it was starting
        logs = [log for code, log in self._gone if code not in asked and log.exists()]
        return [last for log in logs if NO_DATABASE not in (last := log.read_text()[-500:])]

    def logs_of_survivors(self) -> list[str]:
        """Logs of those that were not killed, so that what they met is in there, now or soon."""
        ended = [log for code, log in self._gone if code != -signal.SIGKILL]
        alive = [log for process, log in self._running.items() if process.is_alive()]
        return [log.read_text() for log in (*ended, *alive) if log.exists()]

    async def signal(self, which: int, number: signal.Signals) -> None:
        """Send a signal to one of them; after SIGKILL and SIGTERM, wait until it is gone."""
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
        """Have everyone who was stopped go on."""
        for each in self._running:
            if each.pid is not None and each.is_alive():
                os.kill(each.pid, signal.SIGCONT)

    def output(self) -> str:
        """All that they have logged."""
        return "".join(each.read_text() for each in sorted(self.folder.glob("worker-*.log")))

    def dismiss(self) -> None:
        """Kill whoever is left."""
        for each in self._running:
            each.kill()
            each.join()


@asynccontextmanager
async def crew(
    settings: Mapping[str, str], folder: Path, wanted: int, traps: Iterable[Trap | None] = ()
) -> AsyncIterator[Crew]:
    """A crew at work for the block; nobody outlives it."""
    crew = Crew(settings, folder, wanted, iter(traps))
    try:
        await asyncio.gather(*(crew.hire() for _ in range(wanted)))
        yield crew
    finally:
        await asyncio.to_thread(crew.dismiss)
