"""Write the generated parts of the documentation: state diagrams from the transition tables, settings, metrics
events, rights and the keys of policies from the code that has them, lowest versions from pyproject.toml.

python -m scripts.generate_docs          rewrite them
python -m scripts.generate_docs --check  exit 1 if one is stale
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from pydantic_core import PydanticUndefined

from bench import capacity, chart, table
from bench.report import RESULTS, Report
from rollwave import metrics
from rollwave.domain import campaign, events, execution, rights
from rollwave.domain.event import Column
from rollwave.settings import Settings
from scripts import policy_reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MEASURED = json.loads((RESULTS / "latest.json").read_text())


def campaign_diagram() -> str:
    """The campaign's table as a Mermaid state diagram; asking for the state one is in is left out."""
    lines = ["    [*] --> CREATED"]
    lines += [
        f"    {status} --> {to}: {action}" for (status, action), to in campaign.TRANSITIONS.items() if to is not status
    ]
    lines += [f"    {status} --> [*]" for status in sorted(campaign.FINAL)]
    return _mermaid(lines)


def execution_diagram() -> str:
    """The execution's table as a Mermaid state diagram."""
    lines = ["    [*] --> PENDING"]
    lines += [
        f"    {status} --> {to}: {cause}"
        for (status, cause), targets in execution.TRANSITIONS.items()
        for to in sorted(targets)
    ]
    lines += [f"    {status} --> [*]" for status in sorted(execution.TERMINAL)]
    return _mermaid(lines)


def settings_table() -> str:
    """Every environment variable, its default, and what it means."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default in (None, PydanticUndefined) else f"`{field.default}`"
        rows.append(f"| `{field.alias or name}` | {default} | {field.description or ''} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """Every metric of ours, as Prometheus names it."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, metric in sorted(vars(metrics).items()):
        if isinstance(metric, Counter | Gauge | Histogram) and not name.startswith("_"):
            [family] = metric.describe()
            suffix = "_total" if family.type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"  # noqa: SLF001  no public way
            rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


def events_table() -> str:
    """Every event of a campaign's history, with the fields of its ``detail``."""
    rows = ["| `event` | about | what happened | fields of `detail` |", "|---|---|---|---|"]
    for word, kind in events.EVENTS.items():
        [device_id] = (each for each in fields(kind) if each.name == "device_id")
        about = "a device" if device_id.default is MISSING else "the campaign"
        meaning = " ".join((kind.__doc__ or "").split())
        rows.append(f"| `{word}` | {about} | {meaning} | {'<br>'.join(map(_field, events.COLUMNS[kind]))} |")
    return "\n".join(rows)


def _field(column: Column) -> str:
    kind = {int: "integer", float: "number", bool: "boolean", list: "list of texts", dict: "object"}.get(
        column.kind, "text"
    )
    notes = [kind, *([column.stored.unit] if column.stored.unit else []), *(["optional"] if column.optional else [])]
    return f"`{column.key}` ({', '.join(notes)}): {column.stored.meaning}"


def rights_table() -> str:
    """The rights of the two roles on every table, with tables of the same rights in one row."""
    by_rights: dict[tuple[str, ...], list[str]] = {}
    for table_name, granted in {**rights.SHARED, **rights.OWN}.items():
        of_engine = [_privileges(granted), *_columns(rights.ENGINE, table_name)]
        of_host = _privileges(rights.OF_A_HOST[table_name]) if table_name in rights.OF_A_HOST else ""
        same = "the same" if of_host == of_engine[0] else of_host
        cells = "; ".join(of_engine), same, "; ".join(_columns(rights.DUE, table_name))
        by_rights.setdefault(cells, []).append(f"`{table_name}`")
    rows = ["| table | `pulse_app` | on a table that a host made | `rollwave_due` |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| {', '.join(each)} | {' | '.join(cells)} |" for cells, each in by_rights.items())])


def _privileges(granted: str) -> str:
    return ", ".join(f"`{each}`" for each in granted.split())


def _columns(role: str, table_name: str) -> list[str]:
    return [
        f"`{privilege}` of {', '.join(f'`{each}`' for each in columns)}"
        for (grantee, privilege, on), columns in rights.COLUMNS.items()
        if (grantee, on) == (role, table_name)
    ]


def bounds_table() -> str:
    """The lowest version of every package that an installation may have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["cli"], *extras["server"], *extras["demo"]]
    bounds = sorted(each.split(">=") for each in wanted if ">=" in each)
    return "\n".join(["| package | lowest |", "|---|---|", *(f"| {name} | {version} |" for name, version in bounds)])


def measured_table() -> str:
    """What the bench has measured, when and on what."""
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in MEASURED["machine"].items())
    rows = table.markdown(Report.read(MEASURED).rows())
    return f"{rows}\n\nMeasured on {MEASURED['measured_at'][:10]}: {machine}."


def capacity_needs() -> str:
    """The tables of docs/reference/capacity.md."""
    return capacity.needs_table(capacity.Measured.of(MEASURED["details"]), capacity.Assumed())


def capacity_inputs() -> str:
    """What that was computed from."""
    return capacity.inputs_table(capacity.Measured.of(MEASURED["details"]), capacity.Assumed())


def rates_chart() -> str:
    """The rates as a picture."""
    return chart.chart(Report.read(MEASURED))


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


GENERATED = {
    "architecture.md": {"campaign": campaign_diagram, "execution": execution_diagram},
    "howto/install.md": {"bounds": bounds_table},
    "howto/run-in-production.md": {"rights": rights_table},
    "reference/events.md": {"events": events_table},
    "reference/settings.md": {"settings": settings_table},
    "reference/observability.md": {"metrics": metrics_table},
    "reference/policy.md": policy_reference.tables(),
    "reference/performance.md": {"measured": measured_table},
    "reference/capacity.md": {"needs": capacity_needs, "inputs": capacity_inputs},
}

WHOLE = {RESULTS / "rates.svg": rates_chart}
"""Files that are generated from their first line to their last."""


def render(text: str, name: str, body: str) -> str:
    """Put ``body`` between the markers of ``name``."""
    pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(\n<!-- end: {name} -->)", re.DOTALL)
    found, count = pattern.subn(lambda match: match[1] + body + match[2], text)
    if count != 1:
        raise SystemExit(f"no markers for {name}")
    return found


def main() -> int:
    """Rewrite the files, or with --check say which are stale."""
    stale = []
    for path, fresh in _fresh():
        if not path.exists() or fresh != path.read_text("utf-8"):
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(fresh, "utf-8")
    if stale:
        print(f"{'stale' if '--check' in sys.argv else 'rewritten'}: {', '.join(stale)}")
    return int(bool(stale) and "--check" in sys.argv)


def _fresh() -> Iterator[tuple[Path, str]]:
    for file, parts in GENERATED.items():
        text = (DOCS / file).read_text("utf-8")
        for name, make in parts.items():
            text = render(text, name, make())
        yield DOCS / file, text
    for path, make in WHOLE.items():
        yield path, make()


if __name__ == "__main__":
    raise SystemExit(main())
