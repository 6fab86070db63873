"""The one table: for a terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from bench.report import Row


def figure(value: float, unit: str) -> str:
    """A number as people write it, three digits that matter, with its unit."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return text + {"": "", "ratio": "", "/s": "/s", "x": "x"}.get(unit, f" {unit}")


def target(row: Row) -> str:
    """What the figure should be."""
    if row.line.target is None:
        return ""
    return f"{'≥' if row.line.better == 'higher' else '≤'} {figure(row.line.target, row.line.unit)}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print it."""
    table = Table(padding=(0, 2, 0, 0), box=None, show_header=True)
    table.add_column("", no_wrap=True)
    for heading in ("value", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("")
    for group, lines in groupby(rows, key=lambda row: row.line.group):
        table.add_row(f"[bold]{group}[/bold]")
        for row in lines:
            verdict = row.verdict if row.met else f"[bold red]{row.verdict}[/bold red]"
            table.add_row(row.line.what, figure(row.value, row.line.unit), target(row), verdict, row.remark)
    console.print(table)
    judged = [row for row in rows if row.line.target is not None]
    missed = [row for row in judged if not row.met]
    console.print(f"{len(judged)} targets, {len(missed)} missed" + "".join(f"\n  {_missed(row)}" for row in missed))


def _missed(row: Row) -> str:
    return f"{row.line.group}: {row.line.what}, {figure(row.value, row.line.unit)} of {target(row)}"


def markdown(rows: Iterable[Row]) -> str:
    """The same, for a page."""
    lines = ["| | value | target | | |", "|---|--:|--:|---|---|"]
    for group, of_group in groupby(rows, key=lambda row: row.line.group):
        lines.append(f"| **{group}** | | | | |")
        for row in of_group:
            verdict = row.verdict if row.met else f"**{row.verdict}**"
            cells = (row.line.what, figure(row.value, row.line.unit), target(row), verdict, row.remark)
            lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)
