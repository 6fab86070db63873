"""A claimed batch of commands, and what the broker answered to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

from rollwave.store.executions import Claimed, Times

NO_TIMES = Times(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of one claim. They are published before ``lease_ends``, or not at all."""

    commands: Sequence[Claimed] = ()
    body: bytes = b""
    """The same for all commands."""
    times: Times = NO_TIMES
    lease_ends: float = 0.0
    """A time of this process's monotonic clock, in seconds."""
    skipped: int = 0
    """Devices that the claim skipped, because no command can be addressed to them."""
    retry_in: float = inf
    """Seconds until there may be more to claim, where the claim took nothing."""

    def part(self, first: int, last: int) -> Batch:
        """The commands from index ``first`` to before ``last``."""
        return replace(self, commands=self.commands[first:last])

    def only(self, commands: Sequence[Claimed]) -> Batch:
        """The batch with these commands in place of its own."""
        return replace(self, commands=commands)


@dataclass(slots=True)
class Answers:
    """What the broker answered to published commands. Each command is in one of the five lists."""

    taken: list[Claimed] = field(default_factory=list)
    refused: list[Claimed] = field(default_factory=list)
    """Refused one by one, with a reason code."""
    unanswered: list[Claimed] = field(default_factory=list)
    """Not sent, or sent and not acknowledged: the broker may have these."""
    ended_session: list[Claimed] = field(default_factory=list)
    """The broker ended the session over each of these, published alone."""
    too_large: list[Claimed] = field(default_factory=list)
    """Over the broker's packet limit."""
    limit: str = ""
    """What is known of the packet limit, as text."""
    problem: str = ""
    """Why some commands were not taken, as text."""
    session_lost: bool = False
    """The session ended. The command over which it ended may be among the unanswered."""
    timed_out: bool = False
    """The broker did not answer in time."""
    error: Exception | None = None
    """The error that kept the rest from being sent. It is raised once the answers are recorded."""

    @property
    def failed(self) -> int:
        """The number of commands that the broker did not take, as far as is known."""
        return len(self.refused) + len(self.unanswered) + len(self.ended_session) + len(self.too_large)

    def add(self, other: Answers) -> None:
        """Add the answers to another part, except what it left unanswered."""
        self.taken += other.taken
        self.refused += other.refused
        self.ended_session += other.ended_session
        self.too_large += other.too_large
        if other.failed:
            self.problem = self.problem or other.problem
        self.limit = self.limit or other.limit
        self.error = self.error or other.error
