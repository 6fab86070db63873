"""Devices of a segment that may not be sent to have their progress timeout left when it opens."""

from __future__ import annotations

import pytest

from rollwave.domain.retry import hold

PROGRESS = 600.0


@pytest.mark.parametrize("opens_in", [0.0, 1.0, 600.0, 3600.0, 3601.0, 200_000.0])
@pytest.mark.parametrize("left", [-100.0, 0.0, 5.0, 599.0, 5000.0])
def test_when_its_segment_opens_a_device_has_its_progress_timeout_left(opens_in: float, left: float) -> None:
    """Held as often as it is due until the segment opens, by a worker that looks at once."""
    remaining, now = left, 0.0
    while True:
        found = hold(opens_in=opens_in - now, works=True, progress_timeout=PROGRESS, left=remaining)
        if now + found.due_in > opens_in:
            break
        now, remaining = now + found.due_in, remaining + found.prolonged - found.due_in
    at_opening = opens_in - now
    assert found.due_in - at_opening >= PROGRESS - 1e-6
    assert remaining + found.prolonged - at_opening >= PROGRESS - 1e-6
