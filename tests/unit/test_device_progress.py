"""How often a device reports progress."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollwave.device.progress import Throttle

MB = 1_000_000


def test_a_fast_download_is_reported_each_ten_percent() -> None:
    throttle = Throttle()
    reported = [throttle.due(done * MB, 1000 * MB, done / 1000) for done in range(1001)]
    assert [percent for percent in reported if percent is not None] == list(range(10, 91, 10))


def test_a_slow_download_is_reported_once_a_second() -> None:
    throttle = Throttle()
    reported = [throttle.due(tick * MB, 1000 * MB, tick * 0.2) for tick in range(500)]
    assert [percent for percent in reported if percent is not None] == list(range(1, 50))


def test_without_a_known_length_no_progress_is_reported() -> None:
    assert Throttle().due(5, None, 100.0) is None
    assert Throttle().due(0, 0, 100.0) is None


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 5)), max_size=200))
def test_progress_reports_only_rise_and_keep_a_distance(steps: list[tuple[int, float]]) -> None:
    throttle, now, last, at = Throttle(), 0.0, 0, 0.0
    for done, passed in steps:
        now += passed
        percent = throttle.due(done, 100, now)
        if percent is not None:
            assert last < percent <= 99
            assert percent - last >= 10 or now - at >= 1
            last, at = percent, now
