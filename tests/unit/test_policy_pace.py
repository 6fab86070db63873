"""The pace of a policy document: simulated claims reach the rate, and no interval has more than its share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from math import ceil
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy import pace
from rollwave.domain.policy.document.model import PaceRule, Ramp
from rollwave.domain.policy.facts import Facts, PaceClaim, Used
from rollwave.domain.policy.pace import MAX_CLAIMS_KEPT, Rate, Step, ramped, rate_of, step_of
from rollwave.domain.policy.rules import Wave
from rollwave.domain.policy.words import GateName
from rollwave.engine.worker.embedding import WAITED_FOR_SHARE
from rollwave.errors import UnreadableRow

TICK = 10.0
FACTS = Facts(datetime(2027, 1, 11, tzinfo=UTC), CampaignStatus.RUNNING, TICK, Wave(0, None))
MIB = 2**20


class Row:
    """The columns of a campaign's row that the pace uses, written as a claim writes them."""

    def __init__(self, per_minute: float, steps: int) -> None:
        self.per_minute, self.steps = per_minute, steps
        self.opened: float | None = None
        self.used, self.carried = 0, 0.0
        self.recent: tuple[PaceClaim, ...] = ()
        self.claims: list[tuple[float, int]] = []

    @property
    def share(self) -> float:
        """Devices in a tick."""
        return self.per_minute * TICK / 60

    def step(self, now: float) -> Step:
        age = None if self.opened is None else now - self.opened
        stored = Used(age, self.used, self.carried, self.recent)
        return step_of(self.per_minute, tick=TICK, steps=self.steps, stored=stored, now=now)

    def claim(self, now: float, wanted: int = 10**9) -> int:
        step = self.step(now)
        taken = min(step.number, wanted)
        if taken:
            if step.opens:
                anew = self.opened is None or step.advance is None
                self.opened = now - step.age if anew else (self.opened or 0.0) + (step.advance or 0.0)
                self.used, self.carried = 0, step.carried
            self.used += taken
            self.recent = (*step.recent, PaceClaim(now, taken))
            self.claims.append((now, taken))
        return taken

    def look_until(self, end: float, late: Callable[[], float]) -> None:
        """Claim at each time at which more may be claimed, ``late`` seconds after it, as a worker does."""
        now = 0.0
        while now < end:
            self.claim(now)
            now += max(self.step(now).more_in, 1e-3) + late()

    def most_within(self, seconds: float) -> int:
        """The largest number of devices claimed in any interval of this length, without its end."""
        totals = [0, *accumulate(number for _, number in self.claims)]
        most, first = 0, 0
        for last, (now, _) in enumerate(self.claims):
            while self.claims[first][0] <= now - seconds:
                first += 1
            most = max(most, totals[last + 1] - totals[first])
        return most

    def assert_strict(self) -> None:
        """In any interval of whole steps, from one tick on, goes at most its share.

        Rounded up to a whole device for each one to two ticks; of another length, that of the next whole step.
        """
        for ticks in (1, 1.03, 1.5, 2, 3.33, 4.99, 7, 20):
            steps = ceil(ticks * self.steps)
            most = self.share * steps / self.steps + ceil(steps / (2 * self.steps - 1))
            assert self.most_within(steps * TICK / self.steps) <= most, ticks


PER_MINUTE = st.one_of(st.integers(1, 5000), st.floats(0.5, 3000))


@given(
    per_minute=PER_MINUTE,
    steps=st.sampled_from([1, 3, 20]),
    looks=st.lists(
        st.tuples(st.one_of(st.floats(0, 0.6), st.floats(0, 40)), st.one_of(st.integers(1, 500), st.just(10**6))),
        max_size=100,
    ),
)
def test_whenever_it_is_looked_no_interval_has_more_than_its_share(
    per_minute: float, steps: int, looks: list[tuple[float, int]]
) -> None:
    row, now = Row(per_minute, steps), 0.0
    for wait, wanted in looks:
        now += wait
        row.claim(now, wanted)
    row.assert_strict()


@given(per_minute=PER_MINUTE, seed=st.integers(), late=st.sampled_from([0.0, 0.005, 0.02]))
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_a_worker_reaches_the_rate_that_is_shown(per_minute: float, seed: int, late: float) -> None:
    """Each of its looks is up to 20 ms late."""
    row, dice = Row(per_minute, 20), Random(seed)
    seconds = max(100 * TICK, 100 * 60 / per_minute)
    row.look_until(seconds, lambda: dice.uniform(0, late))
    row.assert_strict()
    sent = sum(number for _, number in row.claims)
    assert 0.99 * per_minute * seconds / 60 - 2 <= sent <= per_minute * (seconds + 2 * TICK) / 60 + 1


@pytest.mark.parametrize("per_minute", [1, 7, 59, 60, 601, 12_345])
def test_a_hosts_loop_reaches_the_rate_that_is_shown(per_minute: int) -> None:
    """It calls once in a tick, up to 1 % late, and each call looks again after a short wait."""
    row, dice = Row(per_minute, 1), Random(per_minute)
    now = 0.0
    for _ in range(400):
        row.claim(now)
        if (wait := row.step(now).more_in) < WAITED_FOR_SHARE * TICK:
            row.claim(now + wait)
        now += TICK * dice.uniform(1, 1.01)
    row.assert_strict()
    sent = sum(number for _, number in row.claims)
    assert sent >= 0.99 * per_minute * now / 60 - 1


def test_the_claims_of_a_tick_are_stored_as_a_few() -> None:
    row = Row(6000, 20)
    now = 0.0
    while now < 3 * TICK:
        row.claim(now, 3)
        now += 0.02
        assert len(row.recent) <= MAX_CLAIMS_KEPT + 1
    row.assert_strict()
    assert sum(number for _, number in row.claims) > 0.9 * 3 * row.share


@given(per_minute=st.integers(1, 5000), ahead=st.integers(0, 30))
def test_the_time_of_a_turn_is_when_it_comes(per_minute: int, ahead: int) -> None:
    row = Row(per_minute, 20)
    row.claim(0.0)
    turn, now, gone = row.step(0.001).turn_in(ahead) + 0.001, 0.001, 0
    while gone <= ahead:
        now += max(row.step(now).more_in, 1e-4)
        gone += row.claim(now)
    assert now == pytest.approx(turn, abs=row.step(0.0).length)


def test_a_slow_pace_lets_the_first_device_go_at_once_and_the_next_when_its_time_has_come() -> None:
    row = Row(2, 20)
    assert row.claim(0.0) == 1
    assert row.step(0.1).number == 0
    assert 29 < row.step(0.1).more_in <= 30
    assert row.claim(30.0) == 1


def test_a_clock_that_was_set_back_begins_a_new_grid() -> None:
    step = step_of(600, tick=TICK, steps=20, stored=Used(-3600.0, 10, 0.0, (PaceClaim(3600.0, 10),)), now=0.0)
    assert (step.opens, step.advance, step.number) == (True, None, 5)


def test_the_ramp_grows_with_success_up_to_the_pace() -> None:
    ramp = Ramp.model_validate({"from": 50, "factor": 2, "every_succeeded": 500})
    assert [ramped(600, ramp, succeeded) for succeeded in (0, 499, 500, 1000, 2000, 10**9)] == [
        *(50, 50, 100, 200, 600, 600)
    ]
    assert ramped(600, Ramp.model_validate({"from": 50, "factor": 1, "every_succeeded": 1}), 10**9) == 50


def rule(**keys: object) -> PaceRule:
    return PaceRule.model_validate(keys)


def test_the_slower_of_pace_and_bytes_per_second_counts() -> None:
    both = rule(per_minute=600, bytes={"per_second": "50MiB"})
    assert rate_of(both, succeeded=0, size=10 * MIB) == Rate(300, GateName.BYTES)
    assert rate_of(both, succeeded=0, size=MIB) == Rate(600, GateName.PACE)
    assert rate_of(rule(), succeeded=0, size=None) is None
    with pytest.raises(UnreadableRow, match="size is unknown"):
        rate_of(both, succeeded=0, size=None)


def test_a_limit_below_one_file_lets_one_device_go_at_a_time() -> None:
    tight = rule(bytes={"in_flight": "1MiB", "per_second": "1MiB"})
    size = 60 * MIB
    rate = rate_of(tight, succeeded=0, size=size)
    assert rate == Rate(1, GateName.BYTES)
    step = step_of(1, tick=TICK, steps=20, stored=Used(None), now=0.0)
    assert pace.bytes_(tight, FACTS, rate, step, size=size, number=0).room == 1
    busy = pace.bytes_(tight, FACTS, rate, step, size=size, number=1)
    assert (busy.room, busy.detail["max_bytes_in_flight"]) == (0, MIB)
    used = replace(step, used=1)
    waits = pace.bytes_(tight, FACTS, rate, used, size=size, number=0)
    assert waits.room == 0
    assert waits.until == FACTS.after(used.more_in)


def test_the_gates_say_what_they_limit() -> None:
    quick = rule(per_minute=600, ramp={"from": 60, "factor": 2, "every_succeeded": 10})
    rate = rate_of(quick, succeeded=10, size=None)
    assert rate == Rate(120, GateName.PACE)
    step = step_of(120, tick=TICK, steps=20, stored=Used(0.0, 1, 0.0, (PaceClaim(0.0, 1),)), now=0.0)
    verdict = pace.pace(quick, FACTS, rate, step)
    assert (verdict.room, verdict.until) == (0, FACTS.after(0.5))
    assert verdict.text == f"at most 120 new devices a minute; the next at {FACTS.after(0.5):%H:%M:%S} UTC"
    assert pace.pace(rule(), FACTS, None, None).room is None
    assert pace.bytes_(quick, FACTS, rate, step, size=None, number=7).room is None
    assert pace.in_flight(None, 7).room is None
    assert pace.in_flight(7, 9).room == 0


def test_empty_limits_on_bytes_need_no_size_of_the_firmware() -> None:
    empty = rule(bytes={})
    pace.require_size(empty, None)
    assert pace.bytes_(empty, FACTS, None, None, size=None, number=7).room is None


def test_the_jitter_is_whole_seconds() -> None:
    assert pace.start_within(rule(start_jitter="90s")) == 90
    assert pace.start_within(rule()) is None
