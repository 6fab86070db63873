from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.pace import SMALLEST_STEP_DEVICES, Pace, allowance

FRESH = Pace(rate=10, tick=10.0, age=None, used=0)


def test_the_first_window_grants_the_rate() -> None:
    granted = allowance(FRESH, wave_left=100)
    assert (granted.tokens, granted.fresh, granted.opens_window) == (10, 10, True)


def test_a_used_window_gives_the_time_of_the_next() -> None:
    granted = allowance(replace(FRESH, age=4.0, used=10), wave_left=100)
    assert (granted.tokens, granted.opens_window, granted.retry_in) == (0, False, 6.0)


def test_a_window_half_used_grants_the_rest() -> None:
    assert allowance(replace(FRESH, age=4.0, used=7), wave_left=100).tokens == 3


def test_a_time_read_before_the_lock_opens_no_new_window() -> None:
    assert allowance(replace(FRESH, age=-0.2, used=10), wave_left=100).tokens == 0


def test_wave_and_cap_limit_only_new_devices() -> None:
    granted = allowance(replace(FRESH, in_flight=4, max_in_flight=5), wave_left=100)
    assert (granted.tokens, granted.fresh) == (10, 1)
    assert allowance(FRESH, wave_left=2).fresh == 2
    assert allowance(FRESH, wave_left=-1).fresh == 0


@given(
    st.integers(1, 50),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100)), max_size=60),
)
def test_no_tick_interval_from_its_first_claim_exceeds_the_rate(
    rate: int, tick: float, steps: list[tuple[float, int]]
) -> None:
    now, used = 0.0, 0
    opened: float | None = None
    claims: list[tuple[float, int]] = []
    for pause, wanted in steps:
        now += pause
        age = None if opened is None else now - opened
        granted = allowance(Pace(rate, tick, age, used), wave_left=10**9)
        taken = min(wanted, granted.tokens)
        if taken and granted.opens_window:
            opened, used = now, 0
            claims.append((now, 0))
        if taken:
            used += taken
            claims[-1] = (claims[-1][0], claims[-1][1] + taken)
    assert all(number <= rate for _, number in claims)
    assert all(later - earlier >= tick * 0.999999 for (earlier, _), (later, _) in pairwise(claims))


def test_a_small_rate_is_divided_into_fewer_steps() -> None:
    assert allowance(replace(FRESH, steps=20), wave_left=100).tokens == 10, "few are no burst"
    assert (
        allowance(replace(FRESH, rate=SMALLEST_STEP_DEVICES * 4, steps=20), wave_left=1000).tokens
        == SMALLEST_STEP_DEVICES
    )
    assert (
        allowance(replace(FRESH, rate=SMALLEST_STEP_DEVICES * 40, steps=20), wave_left=9999).tokens
        == SMALLEST_STEP_DEVICES * 2
    )


@given(st.integers(1, 5000), st.floats(0.1, 100), st.integers(1, 40))
def test_each_step_permits_its_share_and_the_window_the_whole_rate(rate: int, tick: float, steps: int) -> None:
    now, used, claims = 0.0, 0, list[int]()
    while used < rate:
        granted = allowance(Pace(rate, tick, now if claims else None, used, steps=steps), wave_left=10**9)
        if granted.tokens:
            claims.append(granted.tokens)
            used += granted.tokens
        else:
            assert granted.retry_in > 0
            now += granted.retry_in + tick * 1e-9
    assert used == rate
    assert max(claims) <= max(2 * SMALLEST_STEP_DEVICES, -(-rate // steps)), (
        "no more at once than a step's share, rounded up"
    )
    assert now < tick, "all of them within the window"
    done = allowance(Pace(rate, tick, now, used, steps=steps), wave_left=10**9)
    assert (done.tokens, round(now + done.retry_in, 6)) == (0, round(tick, 6))
