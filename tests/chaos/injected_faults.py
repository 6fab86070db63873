"""Faults injected at the engine's failpoints: the worker dies, freezes, is slow, or an error is raised."""

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


class Effect(StrEnum):
    """The effect of a fault on a worker."""

    CRASH = "crash"
    FREEZE = "freeze"
    """The whole process stops for a while, as on a machine that swaps, or after SIGSTOP."""
    PAUSE = "pause"
    """This step takes long. Other tasks continue."""
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """Takes effect the ``nth`` time that a worker reaches a failpoint. An error is raised ``times`` in a row."""

    point: Failpoint
    effect: Effect
    nth: int = 1
    seconds: float = 1.5
    error: type[Exception] = ConnectionResetError
    times: int = 1

    @property
    def is_programming_error(self) -> bool:
        """Whether this error means a mistake in the engine and not an outage."""
        return self.effect is Effect.RAISE and issubclass(self.error, PROGRAMMING_ERRORS)

    def __str__(self) -> str:
        error = f" {self.error.__name__} {self.times} times" if self.effect is Effect.RAISE else ""
        return f"{self.effect}{error} at {self.point}, time {self.nth}"


INJECTED = "INJECTED"
"""Prefix of the log line by which a worker says that its fault took effect."""


class ArmedFault:
    """Counts, in the worker's process, how often the failpoint was reached."""

    def __init__(self, fault: InjectedFault) -> None:
        self._fault, self._reached = fault, 0

    async def __call__(self, point: Failpoint) -> None:
        fault = self._fault
        if point is not fault.point:
            return
        self._reached += 1
        times = fault.times if fault.effect is Effect.RAISE else 1
        if not fault.nth <= self._reached < fault.nth + times:
            return
        print(f"{INJECTED} {fault}", file=sys.stderr, flush=True)
        match fault.effect:
            case Effect.CRASH:
                os.kill(os.getpid(), signal.SIGKILL)
            case Effect.FREEZE:
                time.sleep(fault.seconds)  # noqa: ASYNC251  that nothing else runs is the point
            case Effect.PAUSE:
                await asyncio.sleep(fault.seconds)
            case Effect.RAISE:
                raise fault.error(f"fault at {point}")


def unlogged_programming_errors(log: str) -> list[str]:
    """Programming errors that were raised in a worker and whose traceback is missing from this log."""
    injected = {line.removeprefix(f"{INJECTED} ") for line in log.splitlines() if line.startswith(INJECTED)}
    return [fault for fault in sorted(injected) if _is_programming_error(fault) and not _has_traceback(log, fault)]


def _is_programming_error(fault: str) -> bool:
    return any(fault.startswith(f"{Effect.RAISE} {error.__name__} ") for error in PROGRAMMING_ERRORS)


def _has_traceback(log: str, fault: str) -> bool:
    error, point = fault.split()[1], fault.partition(" at ")[2].partition(",")[0]
    return any(
        "Traceback" in line and error in line and f"fault at {point}" in line
        for line in log.splitlines()
        if not line.startswith(INJECTED)
    )
