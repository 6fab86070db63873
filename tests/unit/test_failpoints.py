"""Only tests use failpoints: no shipped module can arm one."""

from __future__ import annotations

import ast
from pathlib import Path

import rollwave
from rollwave.engine.failpoints import Failpoint

SOURCES = sorted(Path(rollwave.__file__).parent.rglob("*.py"))
ALLOWED = {"Failpoint", "reach"}


def test_the_program_itself_arms_no_failpoint() -> None:
    imported = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rollwave.engine.failpoints":
                imported |= {each.name for each in node.names}
            named = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not any(name.endswith("failpoints") for name in named), f"{path} imports the module whole"
    assert imported == ALLOWED


def test_every_failpoint_is_reached_somewhere_in_the_engine() -> None:
    text = "".join(path.read_text() for path in SOURCES)
    assert [point.name for point in Failpoint if f"reach(Failpoint.{point.name})" not in text] == []
