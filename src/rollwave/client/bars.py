"""Bars, gauges and sparklines for a terminal. Each has a form for encodings that have ASCII only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from rollwave.client.marks import STATES
from rollwave.domain.execution import ExecutionStatus

HALF_USED = 0.5
"""From this share on, a gauge is shown as near to tripping."""

_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=+*%#"


def shared_out(total: int, parts: Sequence[int]) -> list[int]:
    """Divide ``total`` cells among ``parts`` by the largest remainder. A part that is not 0 has at least one cell.

    If there are fewer cells than such parts, the last ones have none.
    """
    whole = sum(parts)
    if not whole:
        return [0 for _ in parts]
    exact = [total * part / whole for part in parts]
    cells = [max(1, int(share)) if part else 0 for share, part in zip(exact, parts, strict=True)]
    by_remainder = sorted(range(len(parts)), key=lambda index: cells[index] - exact[index])
    while sum(cells) < total:
        index = min(by_remainder, key=lambda each: (cells[each] - exact[each], each) if parts[each] else (total, each))
        cells[index] += 1
    while sum(cells) > total:
        largest = max(range(len(parts)), key=lambda each: (cells[each], each))
        cells[largest] -= 1
    return cells


@dataclass(frozen=True, slots=True)
class StateBar:
    """All devices of a campaign in one line, divided by state."""

    by_state: Mapping[ExecutionStatus, int]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        cells = shared_out(options.max_width, [self.by_state[state] for state in STATES])
        bar = Text(no_wrap=True)
        for mark, width in zip(STATES.values(), cells, strict=True):
            bar.append((mark.ascii_block if options.ascii_only else mark.block) * width, mark.style)
        yield bar

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(10, options.max_width)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of ``width`` cells that is full at a ``share`` of 1. A share that is not 0 shows at least one cell."""

    share: float
    width: int
    style: str = ""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        full, empty = ("=", ".") if options.ascii_only else ("━", "─")
        share = min(1.0, max(0.0, self.share))
        filled = min(self.width, max(1, round(share * self.width)) if share else 0)
        if share < 1 and filled == self.width:
            filled -= 1
        yield Text.assemble((full * filled, self.style), (empty * (self.width - filled), "bright_black"))

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(self.width, self.width)


def gauge(used: float, width: int, *, tripped: bool) -> Bar:
    """How much of a guardrail is used."""
    return Bar(1.0 if tripped else used, width, "red" if tripped else "yellow" if used >= HALF_USED else "default")


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A small chart of values, each one cell. The highest value is a full cell."""

    values: Sequence[float]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        levels = _ASCII_LEVELS if options.ascii_only else _LEVELS
        top = max(self.values, default=0.0)
        steps = len(levels) - 1
        chosen = (round(value / top * steps) if top else 0 for value in self.values)
        yield Text("".join(levels[step] for step in chosen), no_wrap=True)

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(len(self.values), len(self.values))
