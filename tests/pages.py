"""Runs the commands of a page of the documentation, as its reader does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.installation import Installation
from tests.support import environment

HOWTO = Path(__file__).parent.parent / "docs" / "howto"


def commands(page: str) -> list[str]:
    """The blocks of commands of a page in ``docs/howto``, in order."""
    text = (HOWTO / page).read_text("utf-8")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub("^   ", "", block, flags=re.MULTILINE) for block in blocks]


def run(installation: Installation, script: str, folder: Path) -> str:
    """Run a block in the reader's shell. Returns its output."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env=environment(**installation.env) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (script, done.stdout, done.stderr)
    return done.stdout
