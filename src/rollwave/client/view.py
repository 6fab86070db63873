"""A campaign drawn for a terminal: the same as the page of the console, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rollwave.client.bars import Bar, Sparkline, StateBar, gauge
from rollwave.client.events import Event
from rollwave.client.follow import Look
from rollwave.client.marks import LEVELS, STATES, STATUSES, Mark
from rollwave.client.progress import Snapshot, WaveLine, counts
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy.words import WaveState

WIDE = 120
"""From this many columns on, two sections stand beside each other."""

_LINES_OF_SECTION = 3
_CAUSES_SHOWN = 5
_WHOLE = 10  # a smaller rate is shown with a digit after the point
_EVENTS_SHOWN = 6
_LABEL = 11
_GAUGE = 14
_WELL = frozenset({CampaignStatus.RUNNING, CampaignStatus.COMPLETED})


@dataclass(frozen=True, slots=True)
class Campaign:
    """The whole picture. It fits into the height of the terminal: with less room it shows fewer events."""

    look: Look
    events: Sequence[Event] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        parts = _parts(self.look, ascii_only=options.ascii_only, wide=wide)
        yield from parts
        if not self.events:
            return
        used = sum(len(console.render_lines(part, options)) for part in parts)
        room = (options.height or console.height) - used - 2
        shown = self.events[-min(_EVENTS_SHOWN, max(1, room)) :]
        yield Text()
        yield _section("Events", [_event(each, ascii_only=options.ascii_only) for each in reversed(shown)])


def _parts(look: Look, *, ascii_only: bool, wide: bool) -> list[RenderableType]:
    snapshot = look.snapshot
    head: list[RenderableType] = [
        _title(snapshot, ascii_only=ascii_only),
        *([_rules(snapshot, ascii_only=ascii_only)] if snapshot.rules else []),
        _verdict(snapshot, ascii_only=ascii_only),
        Text(),
    ]
    states: list[RenderableType] = [StateBar(snapshot.by_state), _legend(snapshot, ascii_only=ascii_only), Text()]
    course = [_waves(snapshot), _guardrails(snapshot), _rate(look), _forecast(snapshot)]
    trouble = [_causes(snapshot), _waiting(snapshot)]
    if not wide:
        return [*head, *states, *_there(course), *_there(trouble)]
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=3)
    grid.add_column(ratio=2)
    grid.add_row(Group(*_there(course)), Group(*_there(trouble)))
    return [*head, *states, grid]


def _there(sections: Sequence[RenderableType | None]) -> list[RenderableType]:
    return [each for each in sections if each is not None]


def _sign(mark: Mark, *, ascii_only: bool) -> tuple[str, str]:
    return (mark.ascii_sign if ascii_only else mark.sign), mark.style


def _title(snapshot: Snapshot, *, ascii_only: bool) -> RenderableType:
    row = Table.grid(expand=True, padding=(0, 1, 0, 0))
    row.add_column(ratio=1, no_wrap=True, overflow="crop" if ascii_only else "ellipsis")
    row.add_column(justify="right", no_wrap=True)
    versions = snapshot.versions("->" if ascii_only else "→")
    between = "-" if ascii_only else "·"
    row.add_row(
        Text.assemble((snapshot.name, "bold"), f"  {versions} {between} #{snapshot.id}"),
        Text.assemble(_sign(STATUSES[snapshot.status], ascii_only=ascii_only), f" {snapshot.status}"),
    )
    return row


def _rules(snapshot: Snapshot, *, ascii_only: bool) -> Text:
    words = snapshot.rules.replace("·", "-").replace("\N{EN DASH}", "-") if ascii_only else snapshot.rules
    return Text(words, "bright_black")


def _verdict(snapshot: Snapshot, *, ascii_only: bool) -> Text:
    mark = LEVELS.get(snapshot.level, LEVELS["watch"])
    if snapshot.level == "ok" and (snapshot.failed or snapshot.status not in _WELL):
        mark = replace(STATUSES[snapshot.status], style="")
    style = "" if snapshot.level == "ok" else "bold"
    return Text.assemble(_sign(mark, ascii_only=ascii_only), " ", (snapshot.headline, style))


def _legend(snapshot: Snapshot, *, ascii_only: bool) -> Text:
    parts = [
        Text.assemble(_sign(mark, ascii_only=ascii_only), f" {snapshot.by_state[state]:,} {state}")
        for state, mark in STATES.items()
        if snapshot.by_state[state]
    ]
    return Text("   ").join(parts) if parts else Text("no devices")


def _section(title: str, lines: Sequence[RenderableType]) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    grid.add_column(width=_LABEL, no_wrap=True)
    grid.add_column(ratio=1)
    for number, line in enumerate(lines):
        grid.add_row(Text("" if number else title, "bright_black"), line)
    return grid


def _waves(snapshot: Snapshot) -> RenderableType | None:
    if len(snapshot.waves) < 2:
        return None
    return _section("Waves", [_wave(each) for each in around_the_present(snapshot.waves)])


def around_the_present(waves: Sequence[WaveLine]) -> Sequence[WaveLine]:
    """As many waves as are shown: the first one that is not passed, the one before, and those after."""
    passed = sum(each.state == WaveState.PASSED for each in waves)
    begin = max(0, min(passed - 1, len(waves) - _LINES_OF_SECTION))
    return waves[begin : begin + _LINES_OF_SECTION]


def _wave(wave: WaveLine) -> RenderableType:
    until = f" until {wave.until.astimezone():%H:%M}" if wave.until else ""
    needs = f"; needs an {wave.needs_role}" if wave.needs_role else ""
    return _measured(Bar(wave.share, _GAUGE), Text(f"{wave.text}{until}{needs}"), Text(wave.numbers, no_wrap=True))


def _guardrails(snapshot: Snapshot) -> RenderableType | None:
    shown = snapshot.guardrails_to_show[:_LINES_OF_SECTION]
    if not shown:
        return None
    return _section(
        "Guardrails", [_measured(gauge(each.used, _GAUGE, tripped=each.tripped), Text(each.text)) for each in shown]
    )


def _measured(bar: Bar, text: Text, number: Text | None = None) -> RenderableType:
    row = Table.grid(expand=True, padding=(0, 1, 0, 0))
    row.add_column()
    row.add_column(ratio=1)
    if number is None:
        row.add_row(bar, text)
    else:
        row.add_column(justify="right")
        row.add_row(bar, text, number)
    return row


def _rate(look: Look) -> RenderableType | None:
    rates = look.timeline.recent
    present = look.snapshot.rate
    if present is None and not any(rates):
        return None
    words = Text("" if present is None else f"{present:,.{0 if present >= _WHOLE else 1}f} a minute")
    if not any(rates):
        return _section("Rate", [words])
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(Sparkline(rates), words)
    return _section("Rate", [row])


def _forecast(snapshot: Snapshot) -> RenderableType | None:
    return _section("Forecast", [Text(snapshot.forecast)]) if snapshot.forecast and not snapshot.over else None


def _causes(snapshot: Snapshot) -> RenderableType | None:
    shown = snapshot.causes[:_CAUSES_SHOWN]
    return _section("Failures", [Text(each.text) for each in shown]) if shown else None


def _waiting(snapshot: Snapshot) -> RenderableType | None:
    amounts = snapshot.waiting
    if not amounts:
        return None
    shown = amounts[:_LINES_OF_SECTION]
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column()
    for each in shown:
        grid.add_row(f"{each.devices:,}", Text(each.text))
    rest = amounts[_LINES_OF_SECTION:]
    if rest:
        grid.add_row(f"{sum(each.devices for each in rest):,}", Text(f"in {len(rest)} more lines", "bright_black"))
    return _section("Waiting", [grid])


def _event(event: Event, *, ascii_only: bool) -> Text:
    line = Text.assemble((clock(event), "bright_black"), f"  {event.sentence}", no_wrap=True)
    line.overflow = "crop" if ascii_only else "ellipsis"
    return line


def clock(event: Event) -> str:
    """The time of an event, by the clock of this machine."""
    return event.at.astimezone().strftime("%H:%M:%S")


def in_one_line(snapshot: Snapshot) -> str:
    """The campaign in one line: its status, its devices by state, and the verdict."""
    return f"{snapshot.status}  {counts(snapshot)}  ({snapshot.headline})"
