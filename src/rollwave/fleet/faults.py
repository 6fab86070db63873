"""The faults of simulated devices. They depend only on the seed and the device's id, so a run can be repeated."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import StrEnum

from rollwave.device import codes

_DRAWS = struct.Struct(">6Q")


class Stage(StrEnum):
    """The part of a job in which a fault occurs."""

    COMMAND = "command"
    DOWNLOAD = "download"
    INSTALL = "install"


_CODES = {Stage.COMMAND: "E_REFUSED", Stage.DOWNLOAD: codes.DOWNLOAD, Stage.INSTALL: "E_BOOT"}

_REASONS = {
    Stage.COMMAND: "command refused",
    Stage.DOWNLOAD: "download interrupted: connection reset",
    Stage.INSTALL: "install failed (exit 1): image rejected by the bootloader",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A job ends at ``stage``: with FAILED, ``reason`` and ``code``, or without any further report if ``silent``.

    An empty reason or code: that of the stage.
    """

    stage: Stage = Stage.INSTALL
    reason: str = ""
    silent: bool = False
    code: str = ""

    @property
    def message(self) -> str:
        """The error message that the device reports."""
        return self.reason or _REASONS[self.stage]

    @property
    def reported_code(self) -> str:
        """The code that the device reports."""
        return self.code or _CODES[self.stage]


@dataclass(frozen=True, slots=True)
class FaultRates:
    """The share of devices with each kind of fault, 0 to 1.

    ``fail``: report FAILED at ``fail_stage``, with ``fail_code`` (empty: the stage's). ``mute``: never answer a
    command. ``duplicate``: send every report twice. ``reorder``: send the reports of a job in reverse order. ``slow``:
    take ten times as long.
    """

    fail: float = 0.0
    fail_stage: Stage = Stage.INSTALL
    mute: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    slow: float = 0.0
    fail_code: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """The behaviour of one device. ``pace`` multiplies the duration of its steps: 0.5 to 1.5, or 5 to 15 if slow."""

    fault: Fault | None = None
    duplicate: bool = False
    reorder: bool = False
    pace: float = 1.0


def profile(seed: int, device_id: str, rates: FaultRates) -> Profile:
    """The profile of a device. The same arguments always give the same profile."""
    digest = hashlib.blake2b(f"{seed}:{device_id}".encode(), digest_size=_DRAWS.size).digest()
    fail, mute, duplicate, reorder, slow, pace = (draw / 2**64 for draw in _DRAWS.unpack(digest))
    fault = None
    if mute < rates.mute:
        fault = Fault(Stage.COMMAND, silent=True)
    elif fail < rates.fail:
        fault = Fault(rates.fail_stage, code=rates.fail_code)
    return Profile(
        fault,
        duplicate=duplicate < rates.duplicate,
        reorder=reorder < rates.reorder,
        pace=(0.5 + pace) * (10 if slow < rates.slow else 1),
    )
