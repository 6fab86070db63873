"""What the documentation says of the code is what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rollwave.settings import Settings

ROOT = Path(__file__).parents[2]


def test_generated_parts_are_fresh() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, f"{check.stdout}: run `make docs`"


def test_every_setting_is_explained() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.alias and field.description)] == []
