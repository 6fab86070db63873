"""What is wrong with a simulated device: decided by the seed and its id alone, so a run can be repeated."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum

_DRAWS = struct.Struct(">6Q")


class Stage(StrEnum):
    """Where in a job a fault shows."""

    COMMAND = "command"
    DOWNLOAD = "download"
    INSTALL = "install"


_REASONS = {
    Stage.COMMAND: "command refused",
    Stage.DOWNLOAD: "download broke off: connection reset",
    Stage.INSTALL: "install failed (exit 1): image rejected by the bootloader",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A job ends at ``stage``: with FAILED and ``reason``, or, if ``silent``, without another word."""

    stage: Stage = Stage.INSTALL
    reason: str = ""
    silent: bool = False

    @property
    def message(self) -> str:
        """What the device gives as its error."""
        return self.reason or _REASONS[self.stage]


@dataclass(frozen=True, slots=True)
class FaultRates:
    """Shares of the fleet, 0 to 1 each, that have a fault or a bad habit.

    ``fail`` devices report FAILED at ``fail_stage``; ``mute`` ones never answer a command; ``duplicate``
    ones send every report twice; ``reorder`` ones send a job's reports last first; ``slow`` ones take
    ten times as long.
    """

    fail: float = 0.0
    fail_stage: Stage = Stage.INSTALL
    mute: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    slow: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """One device. ``pace`` is how long its steps take, about 1.0 and ten times that for a slow one."""

    fault: Fault | None = None
    duplicate: bool = False
    reorder: bool = False
    pace: float = 1.0


def profile(seed: int, device_id: str, rates: FaultRates) -> Profile:
    """The device's profile: a function of its arguments and of nothing else."""
    digest = hashlib.blake2b(f"{seed}:{device_id}".encode(), digest_size=_DRAWS.size).digest()
    fail, mute, duplicate, reorder, slow, pace = (draw / 2**64 for draw in _DRAWS.unpack(digest))
    fault = None
    if mute < rates.mute:
        fault = Fault(Stage.COMMAND, silent=True)
    elif fail < rates.fail:
        fault = Fault(rates.fail_stage)
    return Profile(
        fault,
        duplicate=duplicate < rates.duplicate,
        reorder=reorder < rates.reorder,
        pace=(0.5 + pace) * (10 if slow < rates.slow else 1),
    )
