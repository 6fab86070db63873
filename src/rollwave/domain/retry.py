"""What happens to a device when an attempt fails: another attempt after a delay, or the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from rollwave.errors import UnreadableRow


class Reason(StrEnum):
    """Why an attempt failed."""

    NO_ANSWER = "no_answer"
    """Not a word since the broker took the command."""
    NO_PROGRESS = "no_progress"
    """Silent after a word."""
    REPORTED = "reported"
    """The device said FAILED."""
    REJECTED = "rejected"
    """FAILED was its first word: it never began."""
    OVERDUE = "overdue"
    """The time that the device has in all is over, attempts left or not."""


MAX_ATTEMPTS = 100

LONGEST_SECONDS = 31_536_000.0
"""A year: the longest time that a rule may name, in seconds."""


def reported_failure(*, heard: bool) -> Reason:
    """The reason of a failure that a device reports; ``heard``: it had reported something else in this attempt.

    ``apply_reports`` of executions.sql decides the same under the row's lock; a test compares the two.
    """
    return Reason.REPORTED if heard else Reason.REJECTED


SILENCE = frozenset({Reason.NO_ANSWER, Reason.NO_PROGRESS})


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """How much of its total time one device has used, in seconds.

    ``started_ago`` is the time since the broker first acknowledged its command (None: it never has). The campaign was
    suspended for ``suspended_for`` in all, and for ``suspended_before`` of it before that; the rest does not count.

    The statements that end an attempt, claim the next one and look for overdue devices decide the same under the row's
    lock; a test compares them.
    """

    device_timeout: float
    started_ago: float | None
    suspended_for: float = 0.0
    suspended_before: float = 0.0

    @property
    def left(self) -> float:
        """Seconds until the device's total time ends; 0 or less: it has ended."""
        if self.started_ago is None:
            return inf
        return self.device_timeout + self.suspended_for - self.suspended_before - self.started_ago

    @property
    def is_over(self) -> bool:
        """The device gets no other attempt."""
        return self.left <= 0

    def allows_attempt_after(self, delay: float) -> bool:
        """Whether an attempt may follow a failed one after ``delay`` seconds: only if the total time ends later."""
        return delay < self.left

    def due_in(self, delay: float) -> float:
        """Seconds until something becomes of a failed attempt: the next one after ``delay``, or the end of the time."""
        return min(delay, self.left)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures earn another attempt, how many there are in all, and the seconds before the next one."""

    on: frozenset[Reason] = SILENCE
    max_attempts: int = 3
    delay: float = 60.0
    max_delay: float = 3600.0

    @classmethod
    def read(cls, on: Iterable[str] | None, max_attempts: int, delay: float, max_delay: float) -> RetryPolicy:
        """Check what a row holds; None for ``on`` takes the two kinds of silence.

        Raises:
            UnreadableRow: a reason is not known, or a number is out of range.
        """
        try:
            reasons = SILENCE if on is None else frozenset(Reason(each) for each in on)
        except ValueError as error:
            raise UnreadableRow(f"retry_on: {error}", hint=f"Use some of: {', '.join(Reason)}.") from error
        if Reason.OVERDUE in reasons:
            raise UnreadableRow("retry_on: overdue is final", hint="Leave it out, or give devices more time.")
        if not 1 <= max_attempts <= MAX_ATTEMPTS:
            raise UnreadableRow(f"max_attempts {max_attempts} is not within 1 to {MAX_ATTEMPTS}")
        for name, seconds in (("retry_delay", delay), ("retry_delay_max", max_delay)):
            if not 0 <= seconds <= LONGEST_SECONDS:
                raise UnreadableRow(f"{name} {seconds} is not within 0 to {LONGEST_SECONDS:g} seconds")
        return cls(reasons, max_attempts, delay, max_delay)

    def delay_after(self, reason: Reason, attempt: int, *, luck: float) -> float | None:
        """Seconds before attempt ``attempt + 1`` may be sent; None: there is none, the device has failed.

        Doubles with each attempt up to the cap; ``luck`` (0 to 1, drawn by the caller) spreads it over its upper half.
        """
        return self.delay_of(attempt, luck=luck) if self.allows_another(reason, attempt) else None

    def allows_another(self, reason: Reason, attempt: int) -> bool:
        """Whether another attempt follows ``attempt``, which failed for ``reason``.

        ``apply_reports`` of executions.sql decides the same for a failure that a device reports, under the row's lock;
        a test compares the two over every combination.
        """
        return reason in self.on and attempt < self.max_attempts

    def delay_of(self, attempt: int, *, luck: float) -> float:
        """Seconds between the failure of ``attempt`` and the next, where there is a next."""
        return min(self.max_delay, self.delay * 2.0 ** (attempt - 1)) * (0.5 + luck / 2)
