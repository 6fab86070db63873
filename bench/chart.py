"""The rates as a picture: the naive design, Rollwave, and the limit, side by side. Plain SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.report import Report, Row

WIDTH, LEFT, BAR, GAP = 720, 190, 20, 26
_SPAN = WIDTH - LEFT - 90
_COLOURS = {"naive": "#b0b7c3", "": "#2f6fde", "bare": "#5aa469"}
_NAMES = {"naive": "naive design", "": "Rollwave", "bare": "bare limit"}


class _Panel(NamedTuple):
    title: str
    bars: Sequence[tuple[str, Row]]


def chart(report: Report) -> str:
    """An SVG document of what was measured."""
    panels = list(_panels(report))
    longest = max((row.value for panel in panels for _, row in panel.bars), default=1.0)
    y, parts = 10, []
    for panel in panels:
        y += 24
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{panel.title}, a second</text>')
        y += 10
        for kind, row in panel.bars:
            width = max(1.0, row.value / longest * _SPAN)
            parts += [
                f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{_NAMES[kind]}</text>',
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{_COLOURS[kind]}"/>',
                f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{row.value:,.0f}</text>',
            ]
            y += GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}">',
            "<style>text { font-family: sans-serif; font-size: 13px }</style>",
            f'<rect width="{WIDTH}" height="{y + 10}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panels(report: Report) -> Iterator[_Panel]:
    rows = {row.line.key: row for row in report.rows()}
    for what, title in {"dispatch": "Devices dispatched", "ingest": "Reports taken in"}.items():
        for broker in ("mosquitto", "iotcore"):
            keys = {kind: f"{what}.{kind}/{broker}" if kind else f"{what}/{broker}" for kind in _NAMES}
            bars = [(kind, rows[key]) for kind, key in keys.items() if key in rows]
            if bars:
                yield _Panel(f"{title} over {broker}", bars)
