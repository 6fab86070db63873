"""A campaign drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rollwave.client.follow import Look
from rollwave.client.progress import Meter, Snapshot, counts, targeting
from rollwave.client.text import visible
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.overview.texts import duration, percent

_CAUSES_SHOWN = 3

STATE_STYLES: Mapping[ExecutionStatus, str] = MappingProxyType(
    {
        ExecutionStatus.SUCCESS: "green",
        ExecutionStatus.FAILED: "red",
        ExecutionStatus.INSTALLING: "blue",
        ExecutionStatus.DOWNLOADING: "cyan",
        ExecutionStatus.SKIPPED: "yellow",
        ExecutionStatus.PENDING: "bright_black",
    }
)
"""In the order in which a bar shows them: terminal states first."""

STATUS_STYLES: Mapping[CampaignStatus, str] = MappingProxyType(
    {
        CampaignStatus.CREATED: "white",
        CampaignStatus.RUNNING: "cyan",
        CampaignStatus.PAUSED: "yellow",
        CampaignStatus.COMPLETED: "green",
        CampaignStatus.ABORTED: "red",
    }
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar over the available width, divided into ``parts`` of (count, style)."""

    parts: Sequence[tuple[float, str]]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        block = "#" if options.ascii_only else "━"
        total = sum(count for count, _ in self.parts) or 1
        bar, reached = Text(no_wrap=True), 0.0
        for count, style in self.parts:
            reached += count
            bar.append(block * (round(options.max_width * reached / total) - len(bar)), style)
        yield bar

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(10, options.max_width)


def campaign(look: Look, meter: Meter) -> RenderableType:
    """Progress by state, causes of failures, speed and forecast, and how close the guardrail is to tripping."""
    snapshot = look.snapshot
    head = Table.grid(expand=True)
    head.add_column(ratio=1)
    head.add_column(justify="right")
    head.add_row(
        Text.assemble((visible(snapshot.name), "bold"), f"  firmware {visible(snapshot.version)}"),
        Text(snapshot.status, f"bold {STATUS_STYLES[snapshot.status]}"),
    )
    states = Bar([(snapshot.by_state[state], style) for state, style in STATE_STYLES.items()])
    stopped = [Text(f"stopped by {visible(snapshot.stopped_by)}", "bold yellow")] if snapshot.brakes else []
    gauge = [_guardrail(snapshot)] if guardrail(snapshot) else []
    parts = (head, states, _legend(snapshot), *stopped, Text(), *gauge, *_causes(look), Text())
    return Group(*parts, pace(snapshot, meter))


def _causes(look: Look) -> list[Text]:
    most = look.causes.most_common(_CAUSES_SHOWN)
    lines = [Text(f"{count:>9} failed: {cause}", "red", no_wrap=True, overflow="ellipsis") for cause, count in most]
    rest = look.causes.total() - sum(count for _, count in most)
    return [*lines, Text(f"{rest:>9} failed for other causes", "red")] if rest else lines


def _legend(snapshot: Snapshot) -> Text:
    shown = [(state, style) for state, style in STATE_STYLES.items() if snapshot.by_state[state]]
    return Text("   ").join(Text(f"{snapshot.by_state[state]} {state}", style) for state, style in shown)


def pace(snapshot: Snapshot, meter: Meter) -> Text:
    """Wave, speed and forecast in one line; during targeting, its progress."""
    if snapshot.being_targeted:
        return Text(targeting(snapshot), "bright_black")
    parts = [f"{snapshot.closed} of {snapshot.total} devices done"]
    if snapshot.present_wave:
        parts.insert(0, f"wave {visible(snapshot.present_wave)}")
    if not snapshot.counters_final:
        parts.append(f"{meter.rate:.1f} a second")
    if (eta := meter.eta(snapshot)) is not None:
        parts.append(f"about {duration(eta)} to go")
    return Text(" · ".join(parts), "bright_black")


def _guardrail(snapshot: Snapshot) -> RenderableType:
    # The bar is full when the guardrail trips.
    if snapshot.guardrails is None:
        used = min(1.0, snapshot.failure_rate / max(snapshot.threshold or 0.0, 1e-9))
    else:
        used = max((each.used for each in snapshot.guardrails), default=0.0)
    style = "red" if used >= 1 else "yellow" if used >= 1 / 2 else "green"
    row = Table.grid(expand=True, padding=(0, 2, 0, 0))
    row.add_column()
    row.add_column(ratio=1)
    row.add_column(justify="right")
    gauge = Bar([(used, style), (1 - used, "bright_black")])
    row.add_row("guardrail", gauge, Text(guardrail(snapshot), style))
    return row


def in_one_line(snapshot: Snapshot) -> str:
    """The campaign in one line: its status, what stops it, its devices by state, and its guardrail."""
    stopped = f", stopped by {snapshot.stopped_by}" if snapshot.brakes else ""
    wave = f" · wave {snapshot.present_wave}" if snapshot.present_wave else ""
    rail = guardrail(snapshot)
    return f"{snapshot.status}{stopped}  {counts(snapshot)}{wave}" + (f"  ({rail})" if rail else "")


def guardrail(snapshot: Snapshot) -> str:
    """How close the guardrail is to tripping, in words. Of several guardrails, the one that is closest.

    Empty: the campaign has ended, and no guardrail of its policy has tripped.
    """
    if snapshot.guardrails is not None:
        closest = max(snapshot.guardrails, key=lambda each: each.used, default=None)
        if snapshot.over and (closest is None or not closest.tripped):
            return ""
        return "no guardrail" if closest is None else visible(closest.text)
    if snapshot.threshold is None:
        return "the threshold is missing: the campaign is paused"
    rate = f"{percent(snapshot.failure_rate)} failed, trips above {percent(snapshot.threshold)}"
    left = snapshot.failures_to_trip
    if snapshot.over or left is None:
        return rate
    return f"{rate}: {left} more failure{'s' * (left != 1)} in a row"
