"""The documentation agrees with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.admission import admit, explain
from rollwave.domain.policy.facts import DeviceFacts, Facts
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.rules import Policy, Wave
from rollwave.domain.policy.words import GateName
from rollwave.domain.reports.outcome import Outcome
from rollwave.domain.retry import RetryPolicy
from rollwave.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rollwave"
EVENT_ARGUMENT = {
    "debug": 0,
    "info": 0,
    "warning": 0,
    "error": 0,
    "exception": 0,
    "_log_failure": 0,
    "report": 1,
    "tell": 2,
}
"""Functions that log, with the position of the event among their arguments."""


def test_generated_parts_of_the_docs_are_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "scripts.generate_docs", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, f"{check.stdout}: run `make docs`"


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.alias and field.description)] == []


def test_every_gate_has_an_entry() -> None:
    page = (ROOT / "docs" / "reference" / "gates.md").read_text()
    entries = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert entries == list(GateName)


def test_the_example_of_explain_shows_what_the_gates_say() -> None:
    page = (ROOT / "docs" / "reference" / "gates.md").read_text()
    shown = re.findall(r"^(\w+) +(open|closed) +(.+)$", page, re.MULTILINE)
    policy = Policy(Guardrail(0.1), 10, None, 60.0, 60.0, 600.0, RetryPolicy())
    facts = Facts(
        now=datetime(2027, 1, 11, tzinfo=UTC), status=CampaignStatus.RUNNING, tick=10.0, wave=Wave(0, 60), sent=60
    )
    said = explain(admit(policy, facts), facts, DeviceFacts(ExecutionStatus.PENDING))
    assert [(gate, state == "open") for gate, state, _ in shown] == [(each.gate, each.open) for each in said]
    for (_, _, text), verdict in zip(shown, said, strict=True):
        assert verdict.text.startswith(text.removesuffix(" …"))


def test_every_log_event_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "observability.md").read_text()
    logs = page.partition("## Logs")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| ([^|]+) \|", logs, re.MULTILINE)
    documented = {event for cell in first_cells for event in re.findall(r"`(\w+)`", cell)}
    # The doctor prints findings, with methods of the same names.
    sources = [path for path in SOURCE.rglob("*.py") if path.parent.name != "doctor"]
    logged = {event for path in sources for event in _log_events(path)}
    assert documented == logged | {f"ota_status_{kind}" for kind in (Outcome.BAD_TOPIC, Outcome.BAD_PAYLOAD)}


def _log_events(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        for argument in call.args[EVENT_ARGUMENT.get(name, len(call.args)) :][:1]:
            found = constants.get(argument.id) if isinstance(argument, ast.Name) else argument
            if isinstance(found, ast.Constant) and re.fullmatch(r"\w+", str(found.value)):
                yield str(found.value)


def test_every_sql_statement_that_the_architecture_page_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = [
        (file, statement)
        for file, statements in re.findall(r"`(\w+\.sql): ([\w, ]+)`", page)
        for statement in statements.split(", ")
    ]
    there = {
        (path.name, statement)
        for path in (SOURCE / "store" / "sql").glob("*.sql")
        for statement in re.findall(r"^-- name: (\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert named
    assert [each for each in named if each not in there] == []


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "docs/glossary.md", "docs/reference/gates.md", "CONTRIBUTING.md"]
)
def test_every_name_of_the_code_that_a_page_for_contributors_uses_is_in_the_code(page: str) -> None:
    folders = (SOURCE, ROOT / "tests", ROOT / "scripts")
    files = [path for folder in folders for path in folder.rglob("*.*") if path.suffix in (".py", ".sql")]
    there = {path.name for path in files} | {"pyproject.toml"}
    for path in files:
        if path.name != Path(__file__).name:
            there |= set(re.findall(r"\w+", path.read_text("utf-8")))
    named = set(re.findall(r"`(\w+(?:\.\w+)*)`", (ROOT / page).read_text("utf-8")))
    unknown = {name for name in named if name not in there and not set(name.split(".")) <= there}
    assert unknown == set()


def test_every_guarantee_names_an_existing_test() -> None:
    table = (ROOT / "docs" / "reference" / "guarantees.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| G")]
    assert [row.split("|")[1].strip() for row in rows] == [f"G{number}" for number in range(1, 32)]
    for row in rows:
        named = re.findall(r"`((?:\w+/)*\w+\.py)(?:::(\w+))?`", row)
        assert named, row
        for path, test in named:
            assert f"def {test}(" in (ROOT / "tests" / path).read_text() or not test, (path, test)


def test_every_link_between_pages_has_a_target() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8"))
        if not _leads_somewhere(page, target)
    ]
    assert broken == []


def test_the_start_page_names_every_page() -> None:
    start = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    unnamed = [str(page) for page in pages if page.parts[0] not in ("adr", "README.md") and f"({page}" not in start]
    assert unnamed == []


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, heading = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists() or not heading:
        return file.exists()
    headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
    return heading in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
