"""How many devices a campaign may claim now.

A campaign has a window of one tick in database time, shared by every worker. At most ``rate`` devices are
claimed in a window, and the next window opens with the first claim at least one tick after this one opened. Within
the window they may go in equal steps rather than all at its beginning, where each step has enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_STEP_DEVICES = 50
"""Devices for which a step is worth while: fewer at once are no burst, and who waits for them would wonder why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the claiming transaction read, under the campaign's row lock.

    ``age`` is the seconds since the window opened (None: no window yet), ``used`` the devices claimed in it.
    ``steps`` are the equal parts of the window, at most, each of which lets its share of the rate go; 1: all at once.
    """

    rate: int
    tick: float
    age: float | None
    used: int
    in_flight: int = 0
    max_in_flight: int | None = None
    steps: int = 1

    @property
    def parts(self) -> int:
        """The steps that the rate is enough for."""
        return max(1, min(self.steps, self.rate // SMALLEST_STEP_DEVICES))


@dataclass(frozen=True, slots=True)
class Allowance:
    """The answer: ``tokens`` commands of any kind, of which ``fresh`` may open a new device.

    ``opens_window`` says that claiming starts a new window. ``retry_in`` is the seconds until there are more tokens,
    0 when there are some now.
    """

    tokens: int
    fresh: int
    opens_window: bool
    retry_in: float


def allowance(pace: Pace, *, wave_left: int) -> Allowance:
    """Tokens left now, and how many of them may go to devices not yet sent to.

    Sending again takes a token, but neither a place in flight (the device holds one) nor a place in the wave.
    """
    # A window opened well in the future was dated by a clock that has been set back since.
    opens = pace.age is None or pace.age >= pace.tick or pace.age < -pace.tick
    age, used = (0.0, 0) if opens or pace.age is None else (pace.age, pace.used)
    step = min(pace.parts, int(max(0.0, age) * pace.parts / pace.tick) + 1)
    tokens = max(0, _upto(pace, step) - used)
    places = tokens if pace.max_in_flight is None else max(0, pace.max_in_flight - pace.in_flight)
    retry_in = 0.0 if opens or tokens else _next_step(pace, used) * pace.tick / pace.parts - age
    return Allowance(tokens, min(tokens, places, max(0, wave_left)), opens, retry_in)


def _upto(pace: Pace, step: int) -> int:
    """Devices that the first ``step`` steps of a window let go, rounded up."""
    return -(-pace.rate * step // pace.parts)


def _next_step(pace: Pace, used: int) -> int:
    """The steps that must be over before more than ``used`` devices may go: all of them when the rate is used up."""
    return pace.parts if used >= pace.rate else used * pace.parts // pace.rate
