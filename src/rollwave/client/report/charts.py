"""The charts of a report, as SVG: devices by state, and the burn-up over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from rollwave.client.bars import shared_out
from rollwave.client.marks import STATES
from rollwave.client.report.html import Element
from rollwave.client.timeline import Point, Timeline
from rollwave.domain.execution import ExecutionStatus

WIDTH, HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 16, 28
_GRID_LINES = 4
_MARKERS_SHOWN = 12

_STACK = (
    ExecutionStatus.SUCCESS,
    ExecutionStatus.FAILED,
    ExecutionStatus.INSTALLING,
    ExecutionStatus.DOWNLOADING,
    ExecutionStatus.SKIPPED,
)
"""What the burn-up shows, from below. Waiting devices are not drawn."""


def patterns() -> Element:
    """The fills of the states. Each has a pattern, so that they differ without colour, and on paper."""
    hatch = Element("path", d="M-2 2 L2 -2 M0 8 L8 0 M6 10 L10 6", class_="hatch")
    upright = Element("line", x1=2, y1=0, x2=2, y2=8, class_="hatch")
    level = Element("line", x1=0, y1=2, x2=8, y2=2, class_="hatch")
    drawn = {ExecutionStatus.FAILED: hatch, ExecutionStatus.DOWNLOADING: upright, ExecutionStatus.SKIPPED: level}
    fills = [
        Element(
            "pattern",
            Element("rect", width=8, height=8, class_=_css(state)),
            line,
            id=f"fill-{_css(state)}",
            width=8,
            height=8,
            patternUnits="userSpaceOnUse",
        )
        for state, line in drawn.items()
    ]
    return Element("svg", Element("defs", *fills), width=0, height=0, aria_hidden="true", class_="defs")


def _css(state: ExecutionStatus) -> str:
    return state.value.lower()


def fill(state: ExecutionStatus) -> Mapping[str, str]:
    """The attributes that fill an element in the state's colour and pattern."""
    hatched = state in {ExecutionStatus.FAILED, ExecutionStatus.DOWNLOADING, ExecutionStatus.SKIPPED}
    return {"fill": f"url(#fill-{_css(state)})"} if hatched else {"class_": _css(state)}


def state_bar(by_state: Mapping[ExecutionStatus, int]) -> Element:
    """All devices in one bar, divided by state."""
    cells = shared_out(WIDTH, [by_state[state] for state in STATES])
    parts, left = [], 0
    for state, width in zip(STATES, cells, strict=True):
        if width:
            title = Element("title", f"{by_state[state]:,} {state}")
            parts.append(Element("rect", title, x=left, y=0, width=width, height=20, **fill(state)))
        left += width
    label = ", ".join(f"{by_state[state]:,} {state}" for state in STATES if by_state[state])
    return Element("svg", *parts, viewBox=f"0 0 {WIDTH} 20", role="img", aria_label=label, class_="bar")


def gauge(used: float, *, tripped: bool) -> Element:
    """How much of a guardrail is used."""
    width = 120.0 if tripped else 120 * min(1.0, max(0.0, used))
    return Element(
        "svg",
        Element("rect", x=0, y=3, width=120, height=6, class_="track"),
        Element("rect", x=0, y=3, width=width, height=6, class_="tripped" if tripped else "ink"),
        viewBox="0 0 120 12",
        class_="gauge",
        aria_hidden="true",
    )


def burn_up(timeline: Timeline, total: int) -> Element | None:
    """Devices by state over time, stacked, with the plan as a line. None: there are fewer than two points."""
    points = timeline.points
    if len(points) < 2 or points[0].at >= points[-1].at or not total:
        return None
    scale = _Scale(points[0].at, points[-1].at, total)
    summary = points[-1].by_state
    label = ", ".join(f"{summary[state]:,} {state}" for state in _STACK)
    return Element(
        "svg",
        *_grid(scale),
        *_areas(scale, points),
        *_plan(scale, timeline.plan),
        *_markers(scale, timeline),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"Devices by state over time. At the end: {label}",
        class_="chart",
    )


class _Scale:
    """Where a time and a number of devices are in the chart."""

    def __init__(self, start: datetime, end: datetime, total: int) -> None:
        self.start, self.end, self.total = start, end, total

    def x(self, at: datetime) -> float:
        share = (at - self.start) / (self.end - self.start)
        return _LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT)

    def y(self, devices: float) -> float:
        return HEIGHT - _BOTTOM - min(1.0, devices / self.total) * (HEIGHT - _TOP - _BOTTOM)


def _areas(scale: _Scale, points: Sequence[Point]) -> Iterator[Element]:
    below = [0] * len(points)
    for state in _STACK:
        above = [low + point.by_state[state] for low, point in zip(below, points, strict=True)]
        if above != below:
            upper = [f"{scale.x(each.at):.1f},{scale.y(high):.1f}" for each, high in zip(points, above, strict=True)]
            lower = [f"{scale.x(each.at):.1f},{scale.y(low):.1f}" for each, low in zip(points, below, strict=True)]
            outline = " L".join([*upper, *reversed(lower)])
            yield Element("path", Element("title", state.value), d=f"M{outline} Z", **fill(state))
        below = above


def _plan(scale: _Scale, plan: Sequence[tuple[datetime, float]]) -> Iterator[Element]:
    shown = [(at, devices) for at, devices in plan if scale.start <= at <= scale.end]
    if len(shown) > 1:
        line = " ".join(f"{scale.x(at):.1f},{scale.y(devices):.1f}" for at, devices in shown)
        yield Element("polyline", Element("title", "Plan"), points=line, class_="plan")


def _grid(scale: _Scale) -> Iterator[Element]:
    for number in range(_GRID_LINES + 1):
        devices = scale.total * number // _GRID_LINES
        y = scale.y(devices)
        yield Element("line", x1=_LEFT, y1=y, x2=WIDTH - _RIGHT, y2=y, class_="grid")
        yield Element("text", f"{devices:,}", x=_LEFT - 8, y=y + 4, text_anchor="end")
    same_day = scale.start.astimezone(UTC).date() == scale.end.astimezone(UTC).date()
    form = "%H:%M:%S" if same_day else "%d %b %H:%M"
    for number in range(_GRID_LINES + 1):
        at = scale.start + (scale.end - scale.start) * number / _GRID_LINES
        anchor = "start" if number == 0 else "end" if number == _GRID_LINES else "middle"
        yield Element("text", f"{at.astimezone(UTC):{form}}", x=scale.x(at), y=HEIGHT - 8, text_anchor=anchor)


def _markers(scale: _Scale, timeline: Timeline) -> Iterator[Element]:
    for number, each in enumerate(timeline.markers[:_MARKERS_SHOWN], 1):
        x = scale.x(each.at)
        title = Element("title", f"{each.at.astimezone(UTC):%H:%M:%S} {each.text}")
        yield Element("line", title, x1=x, y1=_TOP, x2=x, y2=HEIGHT - _BOTTOM, class_="marker")
        yield Element("text", str(number), x=min(x, WIDTH - _RIGHT - 4), y=_TOP - 4, text_anchor="middle")
