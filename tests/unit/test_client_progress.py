"""A campaign's numbers as an operator reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.client.progress import Meter, Snapshot, counts
from rollwave.domain.policy.flat_guardrail import Guardrail


def snapshot(
    status: str = "RUNNING",
    *,
    threshold: float | None = 0.1,
    least: int = 1,
    targeted: int | None = None,
    **devices: int,
) -> Snapshot:
    return Snapshot.read(
        {
            "id": 7,
            "name": "spring",
            "status": status,
            "firmware_version": "2.1.0",
            "status_breakdown": devices,
            "abort_threshold": threshold,
            "abort_min_completed": least,
            "wave": 0,
            "waves": [],
            "total_devices": 1_000_000,
            "targeted_devices": targeted,
        }
    )


@given(
    succeeded=st.integers(0, 10_000),
    failed=st.integers(0, 10_000),
    threshold=st.integers(0, 99).map(lambda percent: percent / 100),
    least=st.integers(1, 100),
)
def test_the_failures_to_trip_agree_with_the_guardrail(
    succeeded: int, failed: int, threshold: float, least: int
) -> None:
    seen = snapshot(SUCCESS=succeeded, FAILED=failed, threshold=threshold, least=least)
    guardrail = Guardrail(threshold, least)
    left = seen.failures_to_trip
    assert left is not None
    assert guardrail.trips(succeeded, failed + left)
    assert left == 0 or not guardrail.trips(succeeded, failed + left - 1)


@pytest.mark.parametrize("threshold", [1.0, None])
def test_a_guardrail_that_cannot_trip_shows_no_failures_to_trip(threshold: float | None) -> None:
    assert snapshot(FAILED=5, threshold=threshold).failures_to_trip is None


def test_an_aborted_campaign_is_over_before_its_devices_are_finished() -> None:
    assert snapshot("ABORTED", INSTALLING=1, SKIPPED=9).over
    assert not snapshot("ABORTED", INSTALLING=1, SKIPPED=9).counters_final
    assert snapshot("ABORTED", FAILED=1, SKIPPED=9).counters_final


def test_rate_and_forecast_use_the_last_half_minute() -> None:
    meter = Meter(span=30.0)
    for now, done in ((0, 0), (60, 0), (70, 50), (80, 100)):
        meter.see(now, snapshot(SUCCESS=done, PENDING=300 - done))
    assert meter.rate == 5.0
    assert meter.eta(snapshot(SUCCESS=100, PENDING=200)) == 40.0
    assert meter.eta(snapshot("PAUSED", SUCCESS=100, PENDING=200)) is None


def test_counts_show_only_states_that_have_devices() -> None:
    assert counts(snapshot(SUCCESS=3, PENDING=1)) == "1 PENDING · 3 SUCCESS"
    assert counts(snapshot()) == "no devices"


def test_counts_show_the_progress_of_targeting() -> None:
    assert (
        counts(snapshot(PENDING=430_000, targeted=430_000)) == "targeting 430,000 of 1,000,000 devices · 430000 PENDING"
    )
    assert counts(snapshot("ABORTED", SKIPPED=430_000, targeted=430_000)) == "430000 SKIPPED"
