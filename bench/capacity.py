"""Computes the capacity that many devices need, from the results of the bench and stated assumptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from statistics import median
from typing import Any

DEVICES = (1_000_000, 10_000_000, 100_000_000)
ROLLOUTS = {"a day": 86_400, "an hour": 3_600}


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the bench does not measure."""

    words: int = 12
    """Reports of a device in a rollout, each of which is written."""
    busy: float = 0.6
    """How much of a core is used at most, so that there is room for peaks."""
    command_bytes: int = 400
    report_bytes: int = 200
    """On the wire, with topic, MQTT, TCP and IP."""
    compare_every: int = 45
    """Seconds from one comparison of counters with rows to the next (``ROLLWAVE_RECONCILE_INTERVAL``)."""
    connection_kb: int = 20
    """Memory of one idle device's connection in the broker."""


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU microseconds and bytes of WAL for one command and one report; bytes on disk of one execution.

    ``compared`` is the microseconds in which one execution is read when counters are compared with rows.
    """

    command_worker: float
    command_postgres: float
    command_broker: float
    command_wal: float
    report_worker: float
    report_postgres: float
    report_broker: float
    report_wal: float
    row: float
    compared: float

    @classmethod
    def of(cls, details: Mapping[str, Sequence[Any]]) -> Measured:
        """From the details of the bench's JSON: medians of its runs over Mosquitto."""

        def cost(what: str, part: str) -> float:
            return float(median(run["microseconds"][part] for run in details[f"{what}/mosquitto"]))

        def wal(what: str) -> float:
            return float(median(run["wal"] for run in details[f"{what}/mosquitto"]))

        return cls(
            command_worker=cost("dispatch", "workers"),
            command_postgres=cost("dispatch", "postgres"),
            command_broker=cost("dispatch", "broker"),
            command_wal=wal("dispatch"),
            report_worker=cost("ingest", "workers"),
            report_postgres=cost("ingest", "postgres"),
            report_broker=cost("ingest", "broker"),
            report_wal=wal("ingest"),
            row=float(median(each["row"] for each in details["bloat"])),
            compared=_each_of_the_largest(details["flat.verify"]),
        )


def _each_of_the_largest(took: Sequence[Mapping[str, Sequence[float]]]) -> float:
    """Microseconds for each device, from seconds by number of devices."""
    devices = max(map(int, took[0]))
    return median(seconds for run in took for seconds in run[str(devices)]) / devices * 1e6


@dataclass(frozen=True, slots=True)
class Need:
    """What one rollout takes. Cores are those of a machine like the one that was measured."""

    commands: float
    reports: float
    workers: int
    slots: int
    postgres_cores: int
    wal_mb: float
    disk_gb: float
    broker_cores: int
    broker_memory_gb: float
    messages: float
    network_mbit: float


def need(devices: int, seconds: float, measured: Measured, assumed: Assumed) -> Need:
    """Figures for a rollout that is spread evenly over so many seconds. Rates are a second's."""
    commands = devices / seconds
    reports = commands * assumed.words

    def cores(each_command: float, each_report: float, besides: float = 0.0) -> int:
        return ceil((commands * each_command + reports * each_report + besides) / 1e6 / assumed.busy)

    bytes_a_second = commands * assumed.command_bytes + reports * assumed.report_bytes
    return Need(
        commands=commands,
        reports=reports,
        workers=cores(measured.command_worker, measured.report_worker),
        slots=cores(0.0, measured.report_worker),
        postgres_cores=cores(
            measured.command_postgres, measured.report_postgres, devices * measured.compared / assumed.compare_every
        ),
        wal_mb=(commands * measured.command_wal + reports * measured.report_wal) / 1e6,
        disk_gb=devices * measured.row / 1e9,
        broker_cores=cores(measured.command_broker, measured.report_broker),
        broker_memory_gb=devices * assumed.connection_kb / 1e6,
        messages=2 * (commands + reports),
        network_mbit=2 * bytes_a_second * 8 / 1e6,
    )


_WORDS = {
    "commands": "commands per second",
    "reports": "reports per second",
    "workers": "workers (one core each)",
    "slots": "listener slots",
    "postgres_cores": "PostgreSQL, cores",
    "wal_mb": "WAL, MB per second",
    "disk_gb": "executions on disk, GB",
    "broker_cores": "broker, cores",
    "broker_memory_gb": "broker, memory for connections, GB",
    "messages": "broker, messages per second, in and out",
    "network_mbit": "broker's network, Mbit per second, in and out",
}


def needs_table(measured: Measured, assumed: Assumed) -> str:
    """Every figure for every rollout."""
    cases = [(devices, words, seconds) for words, seconds in ROLLOUTS.items() for devices in DEVICES]
    found = [asdict(need(devices, seconds, measured, assumed)) for devices, _, seconds in cases]
    heads = [f"{devices // 1_000_000} million in {words}" for devices, words, _ in cases]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for key, words in _WORDS.items():
        lines.append(f"| {words} | {' | '.join(_figure(each[key]) for each in found)} |")
    return "\n".join(lines)


def inputs_table(measured: Measured, assumed: Assumed) -> str:
    """What went in, and where it comes from."""
    rates, bloat = "`make bench`, rates over Mosquitto", "`make bench`, a million devices"
    rows = [
        *((f"{part}, CPU per command", f"{value:.0f} µs", rates) for part, value in _parts(measured, "command")),
        *((f"{part}, CPU per report", f"{value:.0f} µs", rates) for part, value in _parts(measured, "report")),
        ("WAL per command", f"{measured.command_wal:,.0f} bytes", rates),
        ("WAL per report", f"{measured.report_wal:,.0f} bytes", rates),
        ("size of an execution on disk, with indexes, after its campaign", f"{measured.row:,.0f} bytes", bloat),
        ("reading one execution to compare counters", f"{measured.compared:.2f} µs", "`make bench`, flat"),
        ("time between two comparisons of counters, s", f"{assumed.compare_every}", "default of the setting"),
        ("reports per device, all of them written", f"{assumed.words}", "assumed"),
        ("maximum use of a core", f"{assumed.busy:.0%}", "assumed"),
        (
            "size of a command and of a report on the wire",
            f"{assumed.command_bytes}, {assumed.report_bytes} bytes",
            "assumed",
        ),
        ("memory of a device's connection in the broker", f"{assumed.connection_kb} kB", "assumed"),
    ]
    return "\n".join(["| | | from |", "|---|--:|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def _parts(measured: Measured, what: str) -> list[tuple[str, float]]:
    costs = asdict(measured)
    return [(name, costs[f"{what}_{part}"]) for part, name in _PARTS.items()]


_PARTS = {"worker": "worker", "postgres": "PostgreSQL", "broker": "broker"}


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
