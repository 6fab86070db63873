"""The architecture page lists the files that one device passes through, in the order of a traced run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from scripts.trace_device import SHARED, SOURCE
from tests.support import environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_the_page_names_the_files_that_one_device_passes_through_in_order() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "scripts.trace_device", "--json"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    traced = list(json.loads(run.stdout))
    steps = [re.findall(r"`([\w/]+\.py)`", row.split("|")[2]) for row in _rows()]
    named = [file for step in steps for file in step]
    assert sorted(named) == sorted(traced), "run `python -m scripts.trace_device`, and change docs/architecture.md"
    # Within one step, the order may differ between runs.
    step_of = {file: number for number, step in enumerate(steps) for file in step}
    assert traced == sorted(traced, key=lambda file: step_of[file])


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:\w+/)*\w+\.py)`", PAGE))
    assert [file for file in sorted(named) if not (SOURCE / file).exists()] == []


def test_every_file_that_the_trace_leaves_out_is_there() -> None:
    assert [file for file in SHARED if not (SOURCE / file).exists()] == []


def _rows() -> list[str]:
    table = re.findall(r"<!-- traced -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)[0]
    return str(table).splitlines()[2:]
