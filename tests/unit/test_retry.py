from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.retry import SILENCE, Reason, RetryPolicy
from rollwave.errors import UnreadableRow


def test_by_default_silence_is_retried_and_a_reported_failure_is_final() -> None:
    policy = RetryPolicy()
    assert policy.on == SILENCE
    assert policy.delay_after(Reason.NO_ANSWER, 1, luck=1.0) == 60
    assert policy.delay_after(Reason.REPORTED, 1, luck=1.0) is None


def test_the_retry_delay_doubles_up_to_its_maximum() -> None:
    policy = RetryPolicy(max_attempts=100, delay=60, max_delay=600)
    assert [policy.delay_after(Reason.NO_PROGRESS, n, luck=1.0) for n in (1, 2, 3, 4, 5, 99)] == [
        60, 120, 240, 480, 600, 600,
    ]  # fmt: skip


def test_no_retry_follows_the_last_attempt() -> None:
    assert RetryPolicy(max_attempts=3).delay_after(Reason.NO_ANSWER, 3, luck=0.5) is None


@given(st.integers(1, 99), st.floats(0, 1), st.floats(0, 3600))
def test_jitter_stays_in_the_upper_half_of_the_delay(attempt: int, luck: float, delay: float) -> None:
    policy = RetryPolicy(max_attempts=100, delay=delay, max_delay=3600)
    full = min(3600, delay * 2 ** (attempt - 1))
    found = policy.delay_after(Reason.NO_ANSWER, attempt, luck=luck)
    assert found is not None
    assert full / 2 <= found <= full


@pytest.mark.parametrize(
    ("on", "attempts", "delay", "cap"),
    [
        (["bad luck"], 3, 1, 10),
        (["overdue"], 3, 1, 10),
        ([], 0, 1, 10),
        ([], 101, 1, 10),
        ([], 3, -1, 10),
        ([], 3, 1, float("nan")),
    ],
)
def test_an_unreadable_retry_policy_is_an_error(on: list[str], attempts: int, delay: float, cap: float) -> None:
    with pytest.raises(UnreadableRow):
        RetryPolicy.read(on, attempts, delay, cap)
