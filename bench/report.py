"""What was measured: kept run by run, told as one figure a line, beside its target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.plan import BY_KEY, PLAN, Line

RESULTS = Path(__file__).parent / "results"
KEPT, PARTIAL = RESULTS / "latest.json", RESULTS / "partial.json"
"""The last whole run, and what was measured since in parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line with what came out."""

    line: Line
    runs: tuple[float, ...]
    remark: str

    @property
    def value(self) -> float:
        """The figure that counts."""
        return max(self.runs) if self.line.of_runs == "max" else median(self.runs)

    @property
    def met(self) -> bool:
        """Whether the target is."""
        return self.line.met(self.value)

    @property
    def verdict(self) -> str:
        """``met``, or by how much it is missed."""
        if self.line.target is None:
            return ""
        if self.met:
            return "met"
        if not self.line.target:
            return "MISSED"
        return f"MISSED: {self.value / self.line.target:.2f} x the target"


@dataclass(slots=True)
class Report:
    """Collects figures under the keys of the plan, and what else is worth keeping of each."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    details: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, key: str, value: float, remark: str = "") -> None:
        """Add one run's figure for a line of the plan."""
        assert key in BY_KEY, key
        self.figures.setdefault(key, []).append(value)
        if remark:
            self.remarks[key] = remark

    def note(self, key: str, detail: Any) -> None:
        """Keep more than a figure; it has no line in the table."""
        plain = asdict(detail) if is_dataclass(detail) and not isinstance(detail, type) else detail
        self.details.setdefault(key, []).append(plain)

    def rows(self) -> Iterator[Row]:
        """What has been measured, in the order of the plan."""
        for line in PLAN:
            if line.key in self.figures:
                yield Row(line, tuple(self.figures[line.key]), self.remarks.get(line.key, ""))

    def document(self, machine: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """All of it, for JSON. What the plan says is repeated, for readers without it."""
        lines = [
            {
                **asdict(row.line),
                "value": row.value,
                "verdict": row.verdict,
                "runs": list(row.runs),
                "remark": row.remark,
            }
            for row in self.rows()
        ]
        return {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "options": options,
            "lines": lines,
            "details": self.details,
        }

    @classmethod
    def read(cls, document: dict[str, Any]) -> Report:
        """What :meth:`document` wrote down; lines that are no longer in the plan are left out."""
        lines = [each for each in document["lines"] if each["key"] in BY_KEY]
        return cls(
            {each["key"]: each["runs"] for each in lines},
            {each["key"]: each["remark"] for each in lines if each["remark"]},
            document["details"],
        )


def write(document: dict[str, Any], path: Path) -> None:
    """Write JSON that is pleasant to compare."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(document), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
