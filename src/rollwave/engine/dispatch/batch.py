"""What one claim took, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from rollwave.store.executions import Claimed, Times

NO_TIMES = Times(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one claim took, to be sent before ``lease_ends`` (of this process's monotonic clock)."""

    commands: Sequence[Claimed] = ()
    body: bytes = b""
    times: Times = NO_TIMES
    lease_ends: float = 0.0
    skipped: int = 0
    retry_in: float = inf
    """Seconds until there may be more to claim, where nothing was."""

    def part(self, first: int, last: int) -> Batch:
        """A share of its commands, from ``first`` to before ``last``."""
        return replace(self, commands=self.commands[first:last])

    def only(self, commands: Sequence[Claimed]) -> Batch:
        """The same with these commands."""
        return replace(self, commands=commands)


@dataclass(slots=True)
class Sent:
    """What became of what was published.

    Taken by the broker, refused by it one by one, or not answered: the broker may have these. ``ended``: published
    alone, each ended the connection. ``too_large``: over the broker's packet limit.
    """

    taken: list[Claimed] = field(default_factory=list)
    refused: list[Claimed] = field(default_factory=list)
    unanswered: list[Claimed] = field(default_factory=list)
    trouble: str = ""
    ended: list[Claimed] = field(default_factory=list)
    too_large: list[Claimed] = field(default_factory=list)
    limit: str = ""
    """What is known of that limit."""
    lost: bool = False
    """Whether the session was lost, so that the device over which it was may be among the unanswered."""
    slow: bool = False
    """Whether the broker did not answer in time."""
    error: Exception | None = None
    """What kept the rest from being sent, to be raised once this is written down."""

    @property
    def failed(self) -> int:
        """Commands that the broker did not take, as far as we know."""
        return len(self.refused) + len(self.unanswered) + len(self.ended) + len(self.too_large)

    def add(self, other: Sent) -> None:
        """Count another part's outcome in, all but what it left unanswered."""
        self.taken += other.taken
        self.refused += other.refused
        self.ended += other.ended
        self.too_large += other.too_large
        if other.failed:
            self.trouble = self.trouble or other.trouble
        self.limit = self.limit or other.limit
        self.error = self.error or other.error
