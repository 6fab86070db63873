"""What the fleet itself has seen and said, to be held against what the engine counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rollwave.domain.execution import ExecutionStatus
from rollwave.fleet.uplink import Said


@dataclass(frozen=True, slots=True)
class FleetTally:
    """A snapshot. ``succeeded`` and ``failed`` count a device once for each campaign, by its last outcome."""

    commands: int = 0
    devices: int = 0
    """Distinct devices that were sent a command."""
    duplicates: int = 0
    """Commands that started nothing, because the device had them already."""
    succeeded: int = 0
    failed: int = 0
    downloads: int = 0
    bytes: int = 0

    @property
    def finished(self) -> int:
        """Outcomes in all."""
        return self.succeeded + self.failed


@dataclass(slots=True)
class Ledger:
    """The tally while it grows."""

    received: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    downloads: int = 0
    bytes: int = 0
    outcomes: dict[int, dict[str, ExecutionStatus]] = field(default_factory=dict)
    """By campaign, by device."""

    def delivered(self, said: Said) -> None:
        """The broker has acknowledged a report."""
        if said.report.final:
            self.outcomes.setdefault(said.report.campaign_id, {})[said.device_id] = said.report.status

    def snapshot(self) -> FleetTally:
        """The tally now."""
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
