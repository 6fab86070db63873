"""Real worker processes, forked from one that has imported everything: to be killed, or to walk into a trap."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from rollwave.cli.main import run
from rollwave.engine.failpoints import Failpoint, arm
from tests.support import environment, eventually

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.chaos.preloaded"])


NO_DATABASE = "error: PostgreSQL cannot be reached"


class Deed(StrEnum):
    """What happens to a worker that walks into a trap."""

    CRASH = "crash"
    FREEZE = "freeze"
    """The whole process stands still for a while, as on a machine that swaps, or under SIGSTOP."""
    PAUSE = "pause"
    """This step takes long; the others go on."""
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class Trap:
    """A deed, the ``nth`` time that a worker reaches a failpoint."""

    point: Failpoint
    deed: Deed
    nth: int = 1
    seconds: float = 1.5

    def __str__(self) -> str:
        return f"{self.deed} at {self.point}, time {self.nth}"


class _Snare:
    """A trap, counting in the worker's process."""

    def __init__(self, trap: Trap) -> None:
        self._trap, self._times = trap, 0

    async def __call__(self, point: Failpoint) -> None:
        self._times += point is self._trap.point
        if point is not self._trap.point or self._times != self._trap.nth:
            return
        print(f"TRAP {self._trap}", file=sys.stderr, flush=True)
        match self._trap.deed:
            case Deed.CRASH:
                os.kill(os.getpid(), signal.SIGKILL)
            case Deed.FREEZE:
                time.sleep(self._trap.seconds)  # noqa: ASYNC251  that nothing else runs is the point
            case Deed.PAUSE:
                await asyncio.sleep(self._trap.seconds)
            case Deed.RAISE:
                raise ConnectionResetError(f"trap at {point}")


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
        arm(_Snare(trap))
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
    _gone: list[tuple[int | None, str]] = field(default_factory=list)
    """How they ended, and their last words."""
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
            log = self._running.pop(each)
            self._gone.append((each.exitcode, log.read_text()[-500:] if log.exists() else ""))

    def killed(self) -> int:
        """How many died by SIGKILL, from outside or in a trap."""
        return sum(code == -signal.SIGKILL for code, _ in self._gone)

    def unasked(self) -> list[str]:
        """Last words of those who ended otherwise than killed, or asked to by SIGTERM.

        One that finds no database when it starts says so and ends: its host starts it again.
        """
        asked = (0, -signal.SIGKILL, -signal.SIGTERM)  # the last one while it was starting
        return [words for code, words in self._gone if code not in asked and NO_DATABASE not in words]

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
