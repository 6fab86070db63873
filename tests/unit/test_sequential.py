"""The sequential test: its evidence, bounds and distances, against values computed by hand and by brute force."""

from __future__ import annotations

from math import exp, inf, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.sequential import RATIOS, Prefix, bound, is_evidence, log_evidence, trips, trips_after


def evidence_by_hand(failed: int, sent: int, threshold: float) -> float:
    terms = [ratio**failed * (1 + threshold * (ratio - 1)) ** -sent for ratio in RATIOS]
    return sum(terms) / len(terms)


def test_the_evidence_of_one_failed_device_is_the_mean_of_six_likelihood_ratios() -> None:
    by_hand = (1.5 / 1.025 + 2 / 1.05 + 3 / 1.1 + 5 / 1.2 + 10 / 1.45 + 30 / 2.45) / 6
    assert isclose(exp(log_evidence(1, 1, 0.05)), by_hand)
    assert isclose(by_hand, 4.900594, rel_tol=1e-6)


def test_no_device_is_no_evidence() -> None:
    assert log_evidence(0, 0, 0.05) == pytest.approx(0.0)


@given(st.integers(0, 60), st.integers(0, 200), st.floats(0.001, 0.999))
def test_the_evidence_is_the_formula(failed: int, more: int, threshold: float) -> None:
    sent = failed + more
    assert log_evidence(failed, sent, threshold) == pytest.approx(log(evidence_by_hand(failed, sent, threshold)))


def test_the_evidence_of_many_devices_does_not_overflow() -> None:
    assert log_evidence(3_000_000, 10_000_000, 0.05) > 1e5
    assert -inf < log_evidence(0, 10_000_000, 0.05) < -1e5


@pytest.mark.parametrize(
    ("failed", "sent", "trips_at_once"), [(2, 2, False), (3, 3, True), (3, 25, False), (9, 25, True)]
)
def test_a_test_trips_on_enough_failures(failed: int, sent: int, trips_at_once: bool) -> None:
    assert evidence_by_hand(3, 3, 0.05) > 100 > evidence_by_hand(2, 2, 0.05)
    assert is_evidence(failed, sent, 0.05, 0.01) is trips_at_once


@given(st.integers(0, 10_000_000), st.floats(0.0, 1.0), st.floats(0.0001, 0.9999))
def test_a_share_up_to_the_threshold_is_no_evidence(sent: int, part: float, threshold: float) -> None:
    assert log_evidence(int(part * threshold * sent), sent, threshold) <= 1e-9


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.999), st.floats(0.001, 0.9))
def test_there_is_evidence_by_the_formula(failed: int, more: int, threshold: float, alpha: float) -> None:
    enough = log_evidence(failed, failed + more, threshold) >= -log(alpha)
    assert is_evidence(failed, failed + more, threshold, alpha) is enough


ALPHAS = st.sampled_from([0.001, 0.01, 0.05, 0.2])


@st.composite
def _prefixes(draw: st.DrawFn) -> list[Prefix]:
    found = [Prefix(0, 0)]
    for _ in range(draw(st.integers(1, 6))):
        sent = draw(st.integers(1, 30))
        failed = draw(st.integers(0, sent))
        in_flight = draw(st.integers(0, sent - failed))
        last = found[-1]
        found.append(Prefix(last.sent + sent, last.failed + failed, last.in_flight + in_flight))
    return found[1:]


@given(_prefixes(), ALPHAS)
def test_the_limit_is_the_largest_threshold_at_which_a_prefix_trips(prefixes: list[Prefix], alpha: float) -> None:
    found = bound(prefixes, alpha)
    assert not trips(prefixes, min(1.0, found.limit + 1e-9), alpha)
    if found.limit:
        assert trips([found.prefix], found.limit - 1e-9, alpha)
        assert log_evidence(found.prefix.failed, found.prefix.sent, found.limit) == pytest.approx(-log(alpha), abs=1e-6)
        assert found.value == found.prefix.failed / found.prefix.sent
    else:
        assert not trips(prefixes, 1e-12, alpha)
        assert found.value == 0.0


def test_without_failures_the_limit_is_zero() -> None:
    assert bound([Prefix(100, 0), Prefix(200, 0)], 0.05).limit == 0.0
    assert bound([], 0.05).limit == 0.0


def test_the_limit_of_nine_failures_of_twenty_five() -> None:
    limit = bound([Prefix(25, 9)], 0.01).limit
    assert evidence_by_hand(9, 25, limit) == pytest.approx(100)
    assert 0.05 < limit < 9 / 25


def _trips_after_by_hand(prefixes: list[Prefix], threshold: float, alpha: float) -> int:
    def trips_with(failed: int, sent: int) -> bool:
        return log_evidence(failed, sent, threshold) >= -log(alpha)

    last = prefixes[-1]
    for n in range(last.in_flight + 1):
        if any(trips_with(each.failed + min(n, each.in_flight), each.sent) for each in prefixes):
            return n
    n = 1
    while not trips_with(last.failed + n, last.sent + n - last.in_flight):
        n += 1
    return n


@given(_prefixes(), st.sampled_from([0.01, 0.05, 0.2, 0.5]), ALPHAS)
def test_trips_after_is_the_least_number_of_further_failures(
    prefixes: list[Prefix], threshold: float, alpha: float
) -> None:
    assert trips_after(prefixes, threshold, alpha) == _trips_after_by_hand(prefixes, threshold, alpha)


def test_before_the_first_command_three_failures_trip_a_test() -> None:
    assert trips_after([], 0.05, 0.01) == 3
