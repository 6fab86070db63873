from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.errors import UnreadableRow


@pytest.mark.parametrize(
    ("threshold", "minimum", "succeeded", "failed", "trips"),
    [
        (0.1, 1, 0, 0, False),
        (0.1, 1, 0, 1, True),
        (0.1, 1, 9, 1, False),  # Exactly at the threshold, which does not trip.
        (0.1, 1, 8, 1, True),
        (0.1, 10, 0, 9, False),
        (0.1, 10, 0, 10, True),
        (0.0, 1, 1_000_000, 1, True),
        (1.0, 1, 0, 1_000_000, False),
        (0.3, 1, 7, 3, False),  # 0.3 has no exact binary representation.
        (0.29, 1, 71, 29, False),
        (0.57, 1, 43, 57, False),
    ],
)
def test_the_guardrail_trips_over_its_threshold_with_enough_devices(
    threshold: float, minimum: int, succeeded: int, failed: int, trips: bool
) -> None:
    assert Guardrail.read(threshold, minimum).trips(succeeded, failed) is trips


@pytest.mark.parametrize("threshold", [None, math.nan, math.inf, -0.1, 1.01])
def test_an_unreadable_threshold_is_an_error_and_not_a_pass(threshold: float | None) -> None:
    with pytest.raises(UnreadableRow):
        Guardrail.read(threshold, 1)


@pytest.mark.parametrize("minimum", [None, 0, -1])
def test_an_unreadable_minimum_is_an_error(minimum: int | None) -> None:
    with pytest.raises(UnreadableRow):
        Guardrail.read(0.1, minimum)


@given(st.floats(0, 1), st.integers(0, 10**7), st.integers(0, 10**7))
def test_another_success_never_trips_the_guardrail(threshold: float, succeeded: int, failed: int) -> None:
    guardrail = Guardrail.read(threshold, 1)
    if not guardrail.trips(succeeded, failed) and succeeded + failed:
        assert not guardrail.trips(succeeded + 1, failed)


def test_at_a_wave_gate_a_small_sample_is_judged_too() -> None:
    guardrail = Guardrail.read(0.1, 50)
    assert not guardrail.trips(0, 3)
    assert guardrail.at_gate().trips(0, 3)
