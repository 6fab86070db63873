from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.gates import SMALLEST_STEP_DEVICES, Pace, tokens_of

TEN_A_TICK = Pace(rate=10, interval=10.0)


def test_the_first_interval_permits_the_whole_rate() -> None:
    left = tokens_of(TEN_A_TICK, age=None, used=0)
    assert (left.number, left.opens_interval) == (10, True)


def test_a_used_interval_gives_the_time_of_the_next() -> None:
    left = tokens_of(TEN_A_TICK, age=4.0, used=10)
    assert (left.number, left.opens_interval, left.more_in) == (0, False, 6.0)


def test_an_interval_half_used_permits_the_rest() -> None:
    assert tokens_of(TEN_A_TICK, age=4.0, used=7).number == 3


def test_a_time_read_before_the_lock_opens_no_new_interval() -> None:
    assert tokens_of(TEN_A_TICK, age=-0.2, used=10).number == 0


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
        left = tokens_of(Pace(rate, tick), age=None if opened is None else now - opened, used=used)
        taken = min(wanted, left.number)
        if taken and left.opens_interval:
            opened, used = now, 0
            claims.append((now, 0))
        if taken:
            used += taken
            claims[-1] = (claims[-1][0], claims[-1][1] + taken)
    assert all(number <= rate for _, number in claims)
    assert all(later - earlier >= tick * 0.999999 for (earlier, _), (later, _) in pairwise(claims))


def test_a_small_rate_is_divided_into_fewer_steps() -> None:
    def first(rate: int) -> int:
        return tokens_of(Pace(rate, 10.0, steps=20), age=None, used=0).number

    assert first(10) == 10, "the burst is small"
    assert first(SMALLEST_STEP_DEVICES * 4) == SMALLEST_STEP_DEVICES
    assert first(SMALLEST_STEP_DEVICES * 40) == SMALLEST_STEP_DEVICES * 2


@given(st.integers(1, 5000), st.floats(0.1, 100), st.integers(1, 40))
def test_each_step_permits_its_share_and_the_interval_the_whole_rate(rate: int, tick: float, steps: int) -> None:
    pace = Pace(rate, tick, steps)
    now, used, claims = 0.0, 0, list[int]()
    while used < rate:
        left = tokens_of(pace, age=now if claims else None, used=used)
        if left.number:
            claims.append(left.number)
            used += left.number
        else:
            assert left.more_in > 0
            now += left.more_in + tick * 1e-9
    assert used == rate
    assert max(claims) <= max(2 * SMALLEST_STEP_DEVICES, -(-rate // steps)), (
        "at most a step's share at once, rounded up"
    )
    assert now < tick, "all of them within the interval"
    done = tokens_of(pace, age=now, used=used)
    assert (done.number, round(now + done.more_in, 6)) == (0, round(tick, 6))
