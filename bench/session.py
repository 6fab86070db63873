"""What every measure gets: the lab, where its figures go, and what was asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from bench.lab import Lab
from bench.report import Report

_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Options:
    """How much of everything."""

    devices: int
    runs: int
    brokers: Sequence[str]
    tenants: int
    campaigns: int
    largest: int
    """Devices of the largest campaign that flatness is looked at with."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the bench."""

    lab: Lab
    options: Options
    report: Report = field(default_factory=Report)
    started: float = field(default_factory=time.monotonic)

    def say(self, what: str) -> None:
        """Tell what is being done now."""
        _console.print(f"{time.monotonic() - self.started:5.0f} s  {what}")
