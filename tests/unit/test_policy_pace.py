"""The pace of a policy document: simulated claims reach the rate, and never more than its share and one step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy import pace
from rollwave.domain.policy.document.model import PaceRule, Ramp
from rollwave.domain.policy.facts import Facts, Used
from rollwave.domain.policy.gates import GateName
from rollwave.domain.policy.pace import Rate, Step, ramped, rate_of, step_of
from rollwave.domain.policy.rules import Wave
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
        self.claims: list[tuple[float, int]] = []

    def step(self, now: float) -> Step:
        age = None if self.opened is None else now - self.opened
        stored = Used(age, self.used, self.carried)
        return step_of(self.per_minute, tick=TICK, steps=self.steps, stored=stored)

    def claim(self, now: float, wanted: int = 10**9) -> int:
        step = self.step(now)
        taken = min(step.number, wanted)
        if taken:
            if step.opens:
                anew = self.opened is None or step.advance is None
                self.opened = now - step.age if anew else (self.opened or 0.0) + (step.advance or 0.0)
                self.used, self.carried = 0, step.carried
            self.used += taken
            self.claims.append((now, taken))
        return taken

    def most_within(self, seconds: float) -> int:
        """The largest number of devices claimed in any interval of this length, without its end."""
        totals = [0, *accumulate(number for _, number in self.claims)]
        most, first = 0, 0
        for last, (now, _) in enumerate(self.claims):
            while self.claims[first][0] <= now - seconds:
                first += 1
            most = max(most, totals[last + 1] - totals[first])
        return most


def share_and_a_step(row: Row, seconds: float) -> float:
    """The share of so many seconds and that of one more step; the fraction of a device makes it whole."""
    return row.per_minute * (seconds + row.step(0).length) / 60 + 1


@pytest.mark.parametrize("per_minute", [1, 7, 59, 60, 601, 12_345])
@pytest.mark.parametrize("steps", [1, 20])
def test_claims_in_every_step_reach_the_rate_and_no_more(per_minute: int, steps: int) -> None:
    row, jitter = Row(per_minute, steps), Random(f"{per_minute} {steps}")
    length = row.step(0).length
    for number in range(400):
        row.claim((number + jitter.uniform(0, 0.49)) * length)
    minutes = 400 * length / 60
    sent = sum(number for _, number in row.claims)
    assert 0.99 * per_minute * minutes - 1 <= sent <= 1.01 * per_minute * minutes + 1 + row.step(0).share
    for ticks in (1, 2, 6):
        assert row.most_within(ticks * TICK) <= share_and_a_step(row, ticks * TICK)


@given(
    per_minute=st.integers(1, 5000),
    steps=st.sampled_from([1, 20]),
    waits=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 500)), max_size=60),
)
def test_nothing_is_saved_up_while_nobody_claims(per_minute: int, steps: int, waits: list[tuple[float, int]]) -> None:
    row, now = Row(per_minute, steps), 0.0
    for wait, wanted in waits:
        now += wait
        row.claim(now, wanted)
    for ticks in (1, 2, 5):
        assert row.most_within(ticks * TICK) <= share_and_a_step(row, ticks * TICK)


@given(per_minute=st.integers(1, 5000), ahead=st.integers(0, 30))
def test_the_time_of_a_turn_is_when_it_comes(per_minute: int, ahead: int) -> None:
    row = Row(per_minute, 20)
    row.claim(0.0)
    turn, now, gone = row.step(0.001).turn_in(ahead) + 0.001, 0.001, 0
    while gone <= ahead:
        now += max(row.step(now).more_in, 1e-4)
        gone += row.claim(now)
    assert now == pytest.approx(turn, abs=0.05)


def test_a_slow_pace_lets_the_first_device_go_at_once_and_the_next_when_its_time_has_come() -> None:
    row = Row(2, 20)
    assert row.claim(0.0) == 1
    assert row.step(0.1).number == 0
    assert 29 < row.step(0.1).more_in <= 30
    assert row.claim(30.0) == 1


def test_a_clock_that_was_set_back_begins_a_new_grid() -> None:
    step = step_of(600, tick=TICK, steps=20, stored=Used(-3600.0, 10, 0.0))
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
    step = step_of(1, tick=TICK, steps=20, stored=Used(None))
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
    step = step_of(120, tick=TICK, steps=20, stored=Used(0.0, 1, 0.0))
    verdict = pace.pace(quick, FACTS, rate, step)
    assert (verdict.room, verdict.until) == (0, FACTS.after(0.5))
    assert (
        verdict.text == "120 devices a minute may be sent to for the first time, and 1 have been in this step of 0.5 s"
    )
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
