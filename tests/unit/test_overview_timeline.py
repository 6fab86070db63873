"""The series of a campaign's counters: bounded, with its first and last point, and finer the newer it is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.overview.timeline import (
    COARSE_POINTS,
    FINE_FOR_SECONDS,
    FINE_SECONDS,
    MAX_POINTS,
    resolution,
    surplus,
)

TEN_YEARS = 10 * 366 * 86_400.0

series = st.lists(st.floats(0, TEN_YEARS), min_size=1, max_size=800, unique=True).map(sorted)


def thinned(times: list[float]) -> list[float]:
    removed = set(surplus(times))
    return [each for each in times if each not in removed]


def grown(length: float, every: float, most: int = 3 * MAX_POINTS) -> list[float]:
    """A series that is written for ``length`` seconds, and thinned whenever it has too many points."""
    times, at = [], 0.0
    while at <= length:
        times.append(at)
        if len(times) > most:
            times = thinned(times)
        at += max(every, resolution(0, at))
    return thinned(times)


@given(series)
def test_first_and_last_point_stay_and_nothing_is_invented(times: list[float]) -> None:
    left = thinned(times)
    assert (left[0], left[-1]) == (times[0], times[-1])
    assert set(left) <= set(times)
    assert left == sorted(left)


@given(series)
def test_the_number_of_points_is_bounded(times: list[float]) -> None:
    assert len(thinned(times)) <= MAX_POINTS


@given(series)
def test_thinning_twice_removes_nothing_more(times: list[float]) -> None:
    left = thinned(times)
    assert surplus(left) == []


def test_a_dense_series_of_any_length_is_bounded() -> None:
    for hours in (0.1, 1, 3, 24, 24 * 30):
        times = grown(hours * 3600, every=1 if hours < 24 else 20)
        assert COARSE_POINTS / 2 < len(times) <= MAX_POINTS, hours


@given(st.floats(0, TEN_YEARS), st.floats(0, TEN_YEARS), st.floats(1, TEN_YEARS))
def test_older_points_are_never_finer_than_newer_ones(age: float, other: float, elapsed: float) -> None:
    younger, older = sorted((age, other))
    assert resolution(younger, elapsed) <= resolution(older, elapsed)


@given(st.floats(1, TEN_YEARS), st.floats(1, TEN_YEARS))
def test_the_resolution_does_not_become_finer_again(elapsed: float, other: float) -> None:
    """So a removed point is never missed later."""
    shorter, longer = sorted((elapsed, other))
    assert resolution(FINE_FOR_SECONDS + 1, shorter) <= resolution(FINE_FOR_SECONDS + 1, longer)


def test_a_dense_series_has_no_hole() -> None:
    times = grown(3 * 86_400, every=7)
    coarse = resolution(FINE_FOR_SECONDS + 1, times[-1])
    assert times[-1] / COARSE_POINTS <= coarse <= times[-1] / COARSE_POINTS * 2
    for before, after in pairwise(times):
        longest = FINE_SECONDS if times[-1] - before < FINE_FOR_SECONDS else coarse
        assert after - before <= 2 * longest, (before, after)


def test_the_last_hour_stays_as_fine_as_it_was_written() -> None:
    times = [float(at) for at in range(0, 50_000, int(FINE_SECONDS))]
    left = thinned(times)
    assert [each for each in left if each > times[-1] - 3500] == [each for each in times if each > times[-1] - 3500]


def test_short_series_keep_every_point() -> None:
    assert surplus([]) == surplus([1.0]) == surplus([1.0, 1.1]) == []
