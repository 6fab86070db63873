"""How many devices a campaign's pace lets go now.

A campaign has an interval of one tick in database time, shared by every worker. At most ``rate`` devices are
claimed in it, and the next interval begins with the first claim at least one tick after this one began. Within
an interval they may go in equal steps rather than all at its beginning, where each step has enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_STEP_DEVICES = 50
"""Devices for which a step is worth while: fewer at once are no burst, and who waits for them would wonder why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """At most ``rate`` devices in an interval of ``interval`` seconds.

    They go in so many ``steps`` at most, each of which lets its share of the rate go; 1: all at once.
    """

    rate: int
    interval: float
    steps: int = 1

    @property
    def parts(self) -> int:
        """The steps that the rate is enough for."""
        return max(1, min(self.steps, self.rate // SMALLEST_STEP_DEVICES))


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many commands of any kind may go now; a command that is sent again takes one, as a first one does.

    ``opens_interval`` says that claiming begins a new interval. ``more_in`` is the seconds until there are more tokens,
    0 when there are some now.
    """

    number: int
    opens_interval: bool
    more_in: float


def tokens(pace: Pace, *, age: float | None, used: int) -> Tokens:
    """Tokens left now, where ``used`` were taken in an interval that began ``age`` seconds ago (None: none has)."""
    # An interval that begins well in the future was dated by a clock that has been set back since.
    opens = age is None or age >= pace.interval or age < -pace.interval
    age, used = (0.0, 0) if opens or age is None else (age, used)
    step = min(pace.parts, int(max(0.0, age) * pace.parts / pace.interval) + 1)
    number = max(0, _upto(pace, step) - used)
    more_in = 0.0 if opens or number else _next_step(pace, used) * pace.interval / pace.parts - age
    return Tokens(number, opens, more_in)


def _upto(pace: Pace, step: int) -> int:
    """Devices that the first ``step`` steps of an interval let go, rounded up."""
    return -(-pace.rate * step // pace.parts)


def _next_step(pace: Pace, used: int) -> int:
    """The steps that must be over before more than ``used`` devices may go: all of them when the rate is used up."""
    return pace.parts if used >= pace.rate else used * pace.parts // pace.rate
