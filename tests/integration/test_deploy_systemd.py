"""The systemd units: systemd accepts every line, and rates their exposure as low."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rollwave.settings import Settings
from tests.shipped import DEPLOY
from tests.tools import Tool

FOLDER = DEPLOY / "systemd"
UNITS = {"rollwave-migrate.service": "", "rollwave-serve.service": "", "rollwave-worker@.service": "9091"}
PROGRAM = "/opt/rollwave/bin/rollwave"
EXPOSURE = 12
"""Maximum exposure of 100. Network access and sockets, which it needs, account for it."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with an existing program. A template becomes an instance."""
    made = []
    for name, instance in UNITS.items():
        text = (FOLDER / name).read_text()
        assert PROGRAM in text
        unit = tmp_path / name.replace("@", f"@{instance}")
        unit.write_text(text.replace(PROGRAM, sys.executable))
        made.append(unit)
    return made


def test_the_units_pass_systemds_verification(systemd_analyze: Tool, units: list[Path]) -> None:
    for unit in units:
        assert systemd_analyze.run("verify", "--man=no", unit) == ""
    units[0].write_text(units[0].read_text().replace("ProtectHome", "ProtectHoome"))
    assert "ProtectHoome" in systemd_analyze.tried("verify", "--man=no", units[0]).stdout


def test_the_units_have_a_small_exposure_score(systemd_analyze: Tool, units: list[Path]) -> None:
    for unit in units:
        systemd_analyze.run("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", unit)
    units[0].write_text(units[0].read_text().replace("CapabilityBoundingSet=\n", ""))
    assert systemd_analyze.tried("security", "--offline=true", f"--threshold={EXPOSURE}", units[0]).returncode != 0


@pytest.mark.parametrize("name", [name for name in UNITS if "migrate" not in name])
def test_the_units_give_a_worker_time_to_drain(name: str) -> None:
    assert "\nTimeoutStopSec=35\n" in (FOLDER / name).read_text()


@pytest.mark.parametrize("name", ["engine", "owner"])
def test_environment_files_have_names_that_rollwave_reads(name: str) -> None:
    lines = [line for line in (FOLDER / f"{name}.env.example").read_text().splitlines() if not line.startswith("#")]
    assert {line.partition("=")[0] for line in lines} <= {field.alias for field in Settings.model_fields.values()}
    assert f"/etc/rollwave/{name}.env" in "".join((FOLDER / unit).read_text() for unit in UNITS)
