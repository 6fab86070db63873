"""Shows the demo: as a live screen on a terminal, and as plain lines anywhere else."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from rollwave.client.events import Event
from rollwave.client.follow import Look
from rollwave.client.view import Campaign, in_one_line

_WIDTH = 100
_EVENTS = 8
_EVENT_STYLES = {
    "aborted": "bold red",
    "completed": "bold green",
    "guardrail_tripped": "bold red",
    "segment_quarantined": "bold red",
}


class Screen(Protocol):
    """Shows the demo while it runs."""

    def step(self, what: str) -> None:
        """Show that the server ``what`` is being started."""

    def link(self, address: str) -> None:
        """Show the link to the console, alone on a line that is not wrapped."""

    def heading(self, title: str, text: str) -> None:
        """Show that a release begins."""

    def note(self, text: str) -> None:
        """Show what the demo does next."""

    def watch(self, look: Look) -> None:
        """Show the current state of a campaign."""

    def close(self, outcome: list[Text], further: list[Text]) -> None:
        """Show the result, and what to do next."""


class Lines:
    """Prints one line for each event, and the counters once a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._next_counts = 0.0

    def step(self, what: str) -> None:
        self._say(f"starting {what}")

    def link(self, address: str) -> None:
        self._say("\nThe console, in a browser on this machine:")
        self._say(address)

    def heading(self, title: str, text: str) -> None:
        self._say(f"\n{title}. {text}")

    def note(self, text: str) -> None:
        self._say(f"  {text}")

    def watch(self, look: Look) -> None:
        for event in look.to_show:
            self._say(f"  {_clock(event)}  {event.sentence}")
        present = f"  {in_one_line(look.snapshot)}"
        if present != self._last and (look.snapshot.counters_final or time.monotonic() >= self._next_counts):
            self._say(present)
            self._last, self._next_counts = present, time.monotonic() + 1.0

    def close(self, outcome: list[Text], further: list[Text]) -> None:
        for line in (Text(), *outcome, Text(), *further):
            self._say(line.plain)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Picture:
    """Draws two panels: the campaign with its guardrail, and its events."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._head: list[RenderableType] = []
        self._campaign: RenderableType = Text()
        self._events: deque[Text] = deque(maxlen=_EVENTS)
        self._tail: list[RenderableType] = []

    def step(self, what: str) -> None:
        self._head = [Text(f"Starting {what} …", "bright_black")]
        self._draw()

    def link(self, address: str) -> None:
        for line in (Text("The console, in a browser on this machine:"), Text(address, "cyan"), Text()):
            self._live.console.print(line, soft_wrap=True)

    def heading(self, title: str, text: str) -> None:
        self._head = [Text.assemble((f"{title}. ", "bold"), text), Text()]
        self._draw()

    def note(self, text: str) -> None:
        self._events.append(Text(text, "bold"))
        self._draw()

    def watch(self, look: Look) -> None:
        for event in look.to_show:
            self._events.append(_line(event))
        self._campaign = Panel(
            Campaign(look),
            title=f"campaign {look.snapshot.id}",
            title_align="left",
            border_style="bright_black",
            padding=(1, 2),
        )
        self._draw()

    def close(self, outcome: list[Text], further: list[Text]) -> None:
        self._head = []
        self._tail = [Text(), *outcome]
        self._draw()
        self._live.stop()
        for line in (Text(), *further):
            self._live.console.print(line, soft_wrap=True)

    def frame(self) -> RenderableType:
        """The current content of the screen."""
        return Group(*self._head, self._campaign, *([self._stream()] if self._events else []), *self._tail)

    def _stream(self) -> RenderableType:
        lines = Text("\n", no_wrap=True, overflow="ellipsis").join(self._events)
        return Panel(
            lines,
            title="events",
            title_align="left",
            border_style="bright_black",
            padding=(0, 2),
            height=_EVENTS + 2,
        )

    def _draw(self) -> None:
        self._live.update(self.frame(), refresh=True)


@contextmanager
def screen(console: Console, picture: Path | None) -> Iterator[Screen]:
    """A live screen if ``console`` is a terminal, otherwise plain lines.

    With ``picture``, the last screen is written to that file as SVG.
    """
    if not console.is_terminal and picture is None:
        yield Lines(console)
        return
    console.width = min(console.width, _WIDTH)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        shown = Picture(live)
        yield shown
    if picture is not None:
        _save(shown.frame(), picture)


def _save(frame: RenderableType, picture: Path) -> None:
    with Path("/dev/null").open("w", encoding="utf-8") as discarded:
        recorder = Console(record=True, width=_WIDTH, file=discarded, force_terminal=True)
        recorder.print(frame)
    svg = recorder.export_svg(title="rollwave demo", unique_id="demo")
    # Rich refers to fonts on another server; any fixed-width font will do.
    picture.write_text(re.sub(r"@font-face {.*?}", "", svg, flags=re.DOTALL), "utf-8")


def _line(event: Event) -> Text:
    style = _EVENT_STYLES.get(event.event, "bright_black" if event.device_id else "")
    return Text(f"{_clock(event)}  {event.sentence}", style)


def _clock(event: Event) -> str:
    return event.at.astimezone().strftime("%H:%M:%S")
