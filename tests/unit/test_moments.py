"""Times, read from the seconds since 1970 that statements return."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from rollwave.store.moments import moment, with_moments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-(2**51), 2**33 * 1_000_000))
def test_a_time_is_exact_to_the_microsecond(microseconds: int) -> None:
    """For dates from 1898 to 2242."""
    assert moment(microseconds / 1_000_000) == EPOCH + timedelta(microseconds=microseconds)


def test_a_time_outside_datetimes_range_is_the_nearest_one() -> None:
    assert moment(inf) == moment(1e15) == datetime.max.replace(tzinfo=UTC)
    assert moment(-inf) == datetime.min.replace(tzinfo=UTC)


def test_time_columns_are_recognised_by_name() -> None:
    row = {"at": 0.0, "due_at": None, "created_at": 1.5, "attempt": 1, "seconds": 2.0}
    assert with_moments(row) == row | {"at": EPOCH, "created_at": EPOCH.replace(second=1, microsecond=500_000)}
