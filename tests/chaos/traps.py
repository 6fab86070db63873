"""What a worker walks into at one of the engine's failpoints: it dies, stands still, takes long, or meets an error."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import StrEnum

from rollwave.engine.failpoints import Failpoint

PROGRAMMING_ERRORS = (TypeError, ValueError, KeyError)


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
    """A deed, the ``nth`` time that a worker reaches a failpoint. An error is raised ``times`` in a row."""

    point: Failpoint
    deed: Deed
    nth: int = 1
    seconds: float = 1.5
    error: type[Exception] = ConnectionResetError
    times: int = 1

    @property
    def is_programming_error(self) -> bool:
        """Whether it is what a mistake in the engine would raise, and no outage."""
        return self.deed is Deed.RAISE and issubclass(self.error, PROGRAMMING_ERRORS)

    def __str__(self) -> str:
        error = f" {self.error.__name__} {self.times} times" if self.deed is Deed.RAISE else ""
        return f"{self.deed}{error} at {self.point}, time {self.nth}"


SPRUNG = "TRAP"
"""How a line of a worker's log begins that says that its trap has sprung."""


class ArmedTrap:
    """A trap, counting in the worker's process."""

    def __init__(self, trap: Trap) -> None:
        self._trap, self._reached = trap, 0

    async def __call__(self, point: Failpoint) -> None:
        trap = self._trap
        if point is not trap.point:
            return
        self._reached += 1
        times = trap.times if trap.deed is Deed.RAISE else 1
        if not trap.nth <= self._reached < trap.nth + times:
            return
        print(f"{SPRUNG} {trap}", file=sys.stderr, flush=True)
        match trap.deed:
            case Deed.CRASH:
                os.kill(os.getpid(), signal.SIGKILL)
            case Deed.FREEZE:
                time.sleep(trap.seconds)  # noqa: ASYNC251  that nothing else runs is the point
            case Deed.PAUSE:
                await asyncio.sleep(trap.seconds)
            case Deed.RAISE:
                raise trap.error(f"trap at {point}")


def untold(log: str) -> list[str]:
    """Programming errors that were raised in a worker with this log, and of which it has no traceback."""
    sprung = {line.removeprefix(f"{SPRUNG} ") for line in log.splitlines() if line.startswith(SPRUNG)}
    return [trap for trap in sorted(sprung) if _is_programming_error(trap) and not _has_traceback(log, trap)]


def _is_programming_error(trap: str) -> bool:
    return any(trap.startswith(f"{Deed.RAISE} {error.__name__} ") for error in PROGRAMMING_ERRORS)


def _has_traceback(log: str, trap: str) -> bool:
    error, point = trap.split()[1], trap.partition(" at ")[2].partition(",")[0]
    return any(
        "Traceback" in line and error in line and f"trap at {point}" in line
        for line in log.splitlines()
        if not line.startswith(SPRUNG)
    )
