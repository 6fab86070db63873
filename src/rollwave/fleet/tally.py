"""The fleet's own counts, to compare with those of the engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet.uplink import DeviceReport


@dataclass(frozen=True, slots=True)
class FleetTally:
    """A snapshot. ``succeeded`` and ``failed`` count a device once for each campaign, by its last outcome."""

    commands: int = 0
    devices: int = 0
    """Distinct devices that were sent a command."""
    duplicates: int = 0
    """Commands that a device had received before."""
    succeeded: int = 0
    failed: int = 0
    downloads: int = 0
    bytes: int = 0

    @property
    def finished(self) -> int:
        """Number of outcomes."""
        return self.succeeded + self.failed


@dataclass(slots=True)
class Ledger:
    """The counters behind the tally, updated while the fleet runs."""

    received: Counter[str] = field(default_factory=Counter)
    cancels: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    downloads: int = 0
    bytes: int = 0
    outcomes: dict[int, dict[str, ExecutionStatus]] = field(default_factory=dict)
    """The last outcome, by campaign id and device id."""

    def delivered(self, sent: DeviceReport) -> None:
        """Count a report that the broker has acknowledged."""
        if sent.report.final:
            self.outcomes.setdefault(sent.report.campaign_id, {})[sent.device_id] = sent.report.status

    def snapshot(self) -> FleetTally:
        """The current tally."""
        ended = Counter(status for by_device in self.outcomes.values() for status in by_device.values())
        return FleetTally(
            commands=self.received.total(),
            devices=len(self.received),
            duplicates=self.duplicates,
            succeeded=ended[ExecutionStatus.SUCCESS],
            failed=ended[ExecutionStatus.FAILED],
            downloads=self.downloads,
            bytes=self.bytes,
        )
