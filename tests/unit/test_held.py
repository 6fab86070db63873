"""Devices of a segment that may not be sent to have their progress timeout left when it opens."""

from __future__ import annotations

import pytest

from rollwave.domain.retry import hold

PROGRESS = 600.0


@pytest.mark.parametrize("opens_in", [0.0, 1.0, 600.0, 3600.0, 3601.0, 200_000.0])
@pytest.mark.parametrize("works", [True, False])
def test_when_its_segment_opens_a_device_has_its_progress_timeout_left(opens_in: float, works: bool) -> None:
    """Held as often as it is due until the segment opens, by a worker that looks at once."""
    now = 0.0
    while True:
        due_in = hold(opens_in=opens_in - now, works=works, progress_timeout=PROGRESS)
        if now + due_in >= opens_in:
            break
        now += due_in
    assert now + due_in - opens_in == pytest.approx(PROGRESS if works else 0.0)
