"""What it was measured on, and what a process has used."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

from bench.lab import Lab
from tests.servers import debian_mosquitto

_POSTGRES = "postgres (PostgreSQL) "
_MOSQUITTO = "mosquitto version "
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in seconds, and the peak of resident memory in MB."""

    cpu: float
    peak_memory: float

    def since(self, before: Self) -> Usage:
        """What was used after ``before``."""
        return Usage(self.cpu - before.cpu, self.peak_memory)


def usage(pid: int) -> Usage:
    """What a running process has used so far."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Usage(_cpu(pid), int(status["VmHWM"].split()[0]) / 1024)


def cpu_of_children(pid: int | None) -> float:
    """CPU seconds of a process and its living children: PostgreSQL and its backends."""
    assert pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _cpu(pid) + sum(_cpu(int(child)) for child in children)


def describe(lab: Lab) -> dict[str, str | int | float]:
    """The machine, and the versions that matter."""
    names = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    cpu = next((value.strip() for name, value in names.items() if name.strip() == "model name"), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_gb": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgresql": _output([str(lab.postgres.bin_dir / "postgres"), "--version"]).removeprefix(_POSTGRES),
        "mosquitto": _output([debian_mosquitto() or "true", "-h"]).partition("\n")[0].removeprefix(_MOSQUITTO),
        **{name: version(name) for name in ("rollwave", "asyncpg", "mqttium", "iotcore")},
    }


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # a backend that has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
