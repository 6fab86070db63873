"""Durations: how long a worker works on one campaign at a time, and when it looks at it again."""

from __future__ import annotations

SOON_SECONDS = 1.0
"""Seconds until the next look at a campaign, if nothing tells when it is needed."""

TURN_SECONDS = 2.0
"""Seconds for which a worker works on one campaign before it works on others."""

MAX_STEPS_PER_TICK, SHORTEST_STEP_SECONDS = 20, 0.5
"""Maximum number of parts in which a tick's devices are sent to, and the minimum length of a part in seconds."""


def steps_of(tick_interval: float) -> int:
    """The number of parts in which a worker sends to the devices of a tick of ``tick`` seconds."""
    return max(1, min(MAX_STEPS_PER_TICK, int(tick_interval / SHORTEST_STEP_SECONDS)))
