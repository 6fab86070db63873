"""A PostgreSQL server whose clock a test moves, by libfaketime. Other processes keep the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rollwave.embedded.postgres import EmbeddedPostgres


class Clock:
    """The server's clock. It runs at the machine's speed, this much ahead of the machine's clock."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.reset()

    @property
    def now(self) -> datetime:
        """What the server's clock shows."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead_seconds)

    def reset(self) -> None:
        """Show what the machine's clock shows."""
        self._set(0.0)

    def forward(self, **time: float) -> None:
        """Move the clock forward: ``hours=2``, ``minutes=3`` and so on."""
        self._set(self._ahead_seconds + timedelta(**time).total_seconds())

    def set(self, moment: str) -> None:
        """Set the clock to an RFC 3339 time."""
        self._set(datetime.fromisoformat(moment).timestamp() - time.time())

    def _set(self, ahead_seconds: float) -> None:
        self._ahead_seconds = ahead_seconds
        new = self.file.with_suffix(".new")
        new.write_text(f"{ahead_seconds:+.3f}\n")
        new.replace(self.file)  # The server reads it at any moment, and never a half of it.


class _PostgresWithClock(EmbeddedPostgres):
    def __init__(self, data_dir: Path, library: Path, clock: Clock) -> None:
        self._shift = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        super().__init__(data_dir, settings={"fsync": "off", "log_line_prefix": "%m [%p] %a %d "})

    def _environment(self) -> dict[str, str]:
        return super()._environment() | self._shift


@contextmanager
def postgres_with_clock(folder: Path, library: Path, clock: Clock) -> Iterator[EmbeddedPostgres]:
    """Run an empty server whose clock ``clock`` moves."""
    with _PostgresWithClock(folder / "data", library, clock) as server:
        yield server
