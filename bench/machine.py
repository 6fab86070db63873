"""What it was measured on, and what processes have used."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.lab import Lab
from tests.servers import debian_mosquitto

_POSTGRES = "postgres (PostgreSQL) "
_MOSQUITTO = "mosquitto version "
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds by part."""

    workers: float
    postgres: float
    broker: float
    devices: float = 0.0

    def since(self, before: Used, devices: float = 0.0) -> Used:
        """What was used after ``before``; ``devices`` say for themselves what they used."""
        return Used(
            self.workers - before.workers, self.postgres - before.postgres, self.broker - before.broker, devices
        )

    def each(self, number: int) -> Used:
        """Microseconds for each of ``number``."""
        parts = (self.workers, self.postgres, self.broker, self.devices)
        return Used(*(part / number * 1e6 for part in parts))

    def told(self) -> str:
        """In words, of microseconds."""
        return "µs each: " + ", ".join(f"{name} {value:.0f}" for name, value in self._named())

    def as_cores(self, per_second: float) -> str:
        """In words, of microseconds: how many cores so many a second keep busy."""
        cores = [(name, value * per_second / 1e6) for name, value in self._named()]
        return f"{sum(value for _, value in cores):.1f} cores busy: " + ", ".join(f"{n} {v:.2f}" for n, v in cores)

    def _named(self) -> list[tuple[str, float]]:
        parts = {"workers": self.workers, "PostgreSQL": self.postgres, "broker": self.broker, "devices": self.devices}
        return list(parts.items())


def cpu(pid: int) -> float:
    """CPU seconds of a process; 0 when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def cpu_of_family(pid: int | None) -> float:
    """CPU seconds of a process and its living children: PostgreSQL and its backends."""
    assert pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu(pid) + sum(cpu(int(child)) for child in children)


def memory(pid: int) -> tuple[float, float]:
    """Resident MB of a process: now, and at its peak."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, peak = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def describe(lab: Lab) -> dict[str, Any]:
    """The machine, and the versions that matter."""
    names = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    model = next((value.strip() for name, value in names.items() if name.strip() == "model name"), platform.machine())
    bytes_of_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "memory_gb": round(bytes_of_memory / 2**30, 1),
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgresql": _output([str(lab.postgres.bin_dir / "postgres"), "--version"]).removeprefix(_POSTGRES),
        "mosquitto": _output([debian_mosquitto() or "true", "-h"]).partition("\n")[0].removeprefix(_MOSQUITTO),
        **{name: version(name) for name in ("rollwave", "asyncpg", "mqttium", "iotcore")},
        "commit": _output(["git", "describe", "--always", "--dirty"]),
    }


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
