"""What every measure gets: the lab, where its figures go, and what was asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
    seconds: float
    """Time for everything: what is left of it goes into runs of what is compared."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the bench."""

    lab: Lab
    options: Options
    report: Report = field(default_factory=Report)
    started: float = field(default_factory=time.monotonic)

    def runs(self, *, leaving: float) -> Iterator[int]:
        """As many runs as were asked for and there is time for, one at least; ``leaving`` seconds for what follows."""
        longest = 0.0
        for number in range(1, self.options.runs + 1):
            began = time.monotonic()
            if number > 1 and began - self.started + longest + leaving > self.options.seconds:
                self.say("no time for another run")
                return
            yield number
            longest = max(longest, time.monotonic() - began)

    def say(self, what: str) -> None:
        """Tell what is being done now."""
        _console.print(f"{time.monotonic() - self.started:5.0f} s  {what}")
