"""What was measured: kept run by run, told as medians, each beside the limit that was measured in the same minute."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class Line:
    """One thing measured on one broker, once a run."""

    what: str
    broker: str
    limit: str | None = None
    """Which other line of the same run this one is compared with."""
    target: float | None = None
    runs: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """The median."""
        return median(self.runs)


class Report:
    """Collects figures, prints them, writes them down."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], Line] = {}

    def add(
        self,
        what: str,
        value: float,
        *,
        broker: str = "",
        limit: str | None = None,
        target: float | None = None,
        detail: object = None,
    ) -> None:
        """Add one run's figure, a number a second."""
        line = self._lines.setdefault((what, broker), Line(what, broker, limit, target))
        line.runs.append(value)
        if is_dataclass(detail) and not isinstance(detail, type):
            line.details.append(asdict(detail))

    def print(self, machine: dict[str, str | int | float]) -> None:
        """A table for people."""
        table = Table(title="per second", title_justify="left", padding=(0, 0, 0, 1))
        for heading in ("", "broker", "median", "lowest", "highest", "of bare", "target", "worker", "database"):
            table.add_column(
                heading, no_wrap=True, overflow="ignore", justify="left" if heading in {"", "broker"} else "right"
            )
        for line in self._lines.values():
            share = self._share(line)
            table.add_row(
                *(line.what, line.broker),
                *(f"{figure:,.0f}" for figure in (line.per_second, min(line.runs), max(line.runs))),
                "" if share is None else f"{share:.0%}",
                "" if line.target is None else _verdict(line.per_second, line.target),
                *_cost(line),
            )
        console = Console()
        console.width = max(console.width, 110)
        console.print(", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
        console.print(table)
        console.print(
            "worker, database: CPU microseconds a device, of the worker process and of PostgreSQL", highlight=False
        )
        for line in self._lines.values():
            for told in _details(line):
                console.print(f"{line.what}, {line.broker}: {told}", highlight=False)

    def write(self, machine: dict[str, str | int | float], options: dict[str, Any], *, keep: bool) -> Path:
        """Write results/latest.json, and with ``keep`` a copy under its date."""
        now = datetime.now(UTC)
        document = {
            "measured_at": now.isoformat(timespec="seconds"),
            "machine": machine,
            "options": options,
            "lines": [
                {**asdict(line), "median": line.per_second, "of_limit": self._share(line)}
                for line in self._lines.values()
            ],
        }
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(_rounded(document), indent=1) + "\n"
        latest = RESULTS / "latest.json"
        latest.write_text(text)
        if keep:
            (RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}.json").write_text(text)
        return latest

    def _share(self, line: Line) -> float | None:
        """The median, over the runs, of this line's figure in the limit's figure of the same run."""
        limit = self._lines.get((line.limit or "", line.broker)) or self._lines.get((line.limit or "", ""))
        if limit is None:
            return None
        return median(mine / most for mine, most in zip(line.runs, limit.runs, strict=True))


def _verdict(value: float, target: float) -> str:
    return f"{'over' if value >= target else 'UNDER'} {target:,.0f}"


def _cost(line: Line) -> tuple[str, ...]:
    if not line.details or "worker" not in line.details[0]:
        return ()
    worker = median(each["worker"]["cpu"] / each["devices"] for each in line.details)
    postgres = median(each["postgres_cpu"] / each["devices"] for each in line.details)
    return f"{worker * 1e6:.0f}", f"{postgres * 1e6:.0f}"


def _details(line: Line) -> list[str]:
    if not line.details:
        return []
    if "p50" in line.details[0]:
        p50, p99 = (median(each[key] for each in line.details) * 1000 for key in ("p50", "p99"))
        return [f"publish to commit p50 {p50:.0f} ms, p99 {p99:.0f} ms"]
    told = [f"worker's peak memory {max(each['worker']['peak_memory'] for each in line.details):.0f} MB"]
    if line.details[0]["at_broker"]:
        told += [f"{median(each['at_broker'] for each in line.details):,.0f} a second reached a subscriber"]
    return [", ".join(told)]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
