"""What ``rollwave fleet`` shows: one live line on a terminal, log lines elsewhere, the tally at the end."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Self

from rich.console import Console
from rich.status import Status

from rollwave.cli.output import Format, printed, table
from rollwave.fleet import FleetTally
from rollwave.log import get_logger

_LINE_EVERY = 5.0
_log = get_logger("fleet")


class Display:
    """Progress on stderr, inside ``with``."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = Status("waiting for the broker", console=console) if console.is_terminal else None
        self._last: FleetTally | None = None
        self._due = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._status:
            self._stack.enter_context(self._status)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, tally: FleetTally, passed: float) -> None:
        """Show ``tally`` after ``passed`` seconds. Off a terminal: a log line every few seconds, if it has changed."""
        if self._status:
            self._status.update(_line(tally, passed))
        elif passed >= self._due and tally != self._last:
            self._last, self._due = tally, passed + _LINE_EVERY
            _log.info("fleet_progress", **asdict(tally))


def print_tally(tally: FleetTally, form: Format) -> None:
    """Print the tally on stdout."""
    if not printed(asdict(tally), form):
        table(("counted by the fleet", ""), asdict(tally).items(), empty="")


def _line(tally: FleetTally, passed: float) -> str:
    return (
        f"{passed:6.0f} s   commanded {tally.devices:,}   succeeded {tally.succeeded:,}   "
        f"failed {tally.failed:,}   downloads {tally.downloads:,} ({tally.bytes / 1e6:,.1f} MB)"
    )
