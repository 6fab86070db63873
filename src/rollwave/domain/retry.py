"""The rules for another attempt after a failed one: reasons, number, delay, total time. SQL applies some of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from rollwave.errors import UnreadableRow


class Reason(StrEnum):
    """The reason for which an attempt failed."""

    NO_ANSWER = "no_answer"
    """No report since the broker acknowledged the command."""
    NO_PROGRESS = "no_progress"
    """No further report after the first one."""
    REPORTED = "reported"
    """The device reported FAILED."""
    REJECTED = "rejected"
    """FAILED was the device's first report: it never began."""
    OVERDUE = "overdue"
    """The device timeout is over, even if attempts are left."""


MAX_ATTEMPTS = 100

LONGEST_SECONDS = 31_536_000.0
"""The longest time that a rule may set: a year, in seconds."""


def reported_failure(*, heard: bool) -> Reason:
    """The reason of a reported failure. ``heard``: the device has reported something else in this attempt before.

    ``apply_reports`` of executions.sql decides the same under the row's lock; a test compares the two.
    """
    return Reason.REPORTED if heard else Reason.REJECTED


SILENCE = frozenset({Reason.NO_ANSWER, Reason.NO_PROGRESS})


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """How much of its device timeout one device has used, in seconds.

    ``started_ago``: time since the broker first acknowledged its command (None: it never has). ``suspended_for``: total
    suspension of the campaign; ``suspended_before``: the part of it before the device was started. The difference does
    not count towards the device timeout.

    The statements that end an attempt, claim the next one and find overdue devices decide by the same rule under the
    row's lock; a test compares them.
    """

    device_timeout: float
    started_ago: float | None
    suspended_for: float = 0.0
    suspended_before: float = 0.0

    @property
    def left(self) -> float:
        """Seconds until the device timeout is over; 0 or less: it is over."""
        if self.started_ago is None:
            return inf
        return self.device_timeout + self.suspended_for - self.suspended_before - self.started_ago

    @property
    def is_over(self) -> bool:
        """Whether the device timeout is over, so that no other attempt is made."""
        return self.left <= 0

    def allows_attempt_after(self, delay: float) -> bool:
        """Whether an attempt may begin in ``delay`` seconds: only if the device timeout ends later."""
        return delay < self.left

    def due_in(self, delay: float) -> float:
        """Seconds until the next attempt may begin (``delay``), or until the device timeout is over, if sooner."""
        return min(delay, self.left)


MAX_HELD_SECONDS = 3600.0
"""The longest time for which a device that may not be sent to is held before it is looked at again."""

HELD_SECONDS = 60.0
"""The same where nobody knows when it may be sent to, as under quarantine."""


def hold(*, opens_in: float | None, works: bool, progress_timeout: float) -> float:
    """Hold a device that is due while its segment is closed, so that no claim steps over it.

    When the segment opens, the device has at least its progress timeout left. If it opens earlier, devices that were
    held are made due then.

    Args:
        opens_in: seconds until the segment opens; None: unknown.
        works: its last command was acknowledged, and that attempt has not failed. Otherwise it is sent to again.

    Returns:
        Seconds until the device is due again.

    ``hold`` of standing.sql decides by the same rule under the row's lock; a test compares the two.
    """
    opens_soon = opens_in is not None and opens_in <= MAX_HELD_SECONDS
    wait = HELD_SECONDS if opens_in is None else min(opens_in, MAX_HELD_SECONDS)
    return wait + progress_timeout if works and opens_soon else wait


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The reasons that are retried, the maximum number of attempts, and the delays between them in seconds."""

    on: frozenset[Reason] = SILENCE
    max_attempts: int = 3
    delay: float = 60.0
    max_delay: float = 3600.0

    @classmethod
    def read(cls, on: Iterable[str] | None, max_attempts: int, delay: float, max_delay: float) -> RetryPolicy:
        """Check the values of a row. ``on`` is None: retry the two kinds of silence.

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
        """Seconds before attempt ``attempt + 1`` may be sent; None: there is none, and the device is ``FAILED``.

        The delay doubles with each attempt up to the cap. ``luck``, a random number from 0 to 1, chooses a value in its
        upper half.
        """
        return self.delay_of(attempt, luck=luck) if self.allows_another(reason, attempt) else None

    def allows_another(self, reason: Reason, attempt: int) -> bool:
        """Whether another attempt follows ``attempt``, which failed for ``reason``.

        For a failure that a device reports, ``apply_reports`` in executions.sql decides by the same rule under the
        row's lock; a test compares the two for every combination.
        """
        return reason in self.on and attempt < self.max_attempts

    def delay_of(self, attempt: int, *, luck: float) -> float:
        """Seconds between the failure of ``attempt`` and the next attempt, if there is one."""
        return min(self.max_delay, self.delay * 2.0 ** (attempt - 1)) * (0.5 + luck / 2)
