"""How long a campaign is worked on at a time, and when it is looked at again."""

from __future__ import annotations

SOON_SECONDS = 1.0
"""Until a campaign is looked at again, where nothing tells when that is worth while."""

TURN_SECONDS = 2.0
"""For which one campaign is worked on, before others that wait get their turn."""

MAX_STEPS_PER_TICK, SHORTEST_STEP_SECONDS = 20, 0.5
"""Parts in which a tick's devices go out, so that they do not come all at once; and seconds of one, at least."""


def steps_of(tick_interval: float) -> int:
    """The parts in which a worker sends the devices of a tick of so many seconds."""
    return max(1, min(MAX_STEPS_PER_TICK, int(tick_interval / SHORTEST_STEP_SECONDS)))
