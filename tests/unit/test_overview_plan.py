"""The plan of a campaign: pace, ramp, windows and soak, as if every gate passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.overview.plan import (
    MAX_PLAN_POINTS,
    Plan,
    PlanFacts,
    PlannedWave,
    PlanPoint,
    at,
    ideal,
    in_turn,
    soaks_left,
)
from rollwave.domain.policy.document.model import PaceRule, ScheduleRule, WaveRule
from rollwave.domain.policy.waves import Soak

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


def pace(**keys: Any) -> PaceRule:
    return PaceRule.model_validate({"per_minute": 60, **keys})


def plan(*waves: PlannedWave, **keys: Any) -> Plan:
    sent, succeeded = keys.pop("sent", 0), keys.pop("succeeded", 0)
    facts = PlanFacts(NOON, sent, succeeded, waves, **({"pace": pace()} | keys))
    found = ideal(facts)
    assert found is not None
    return found


def corners(found: Plan) -> list[tuple[float, int]]:
    """Minutes since the beginning, and devices."""
    return [(round((each.at - NOON).total_seconds() / 60, 6), each.devices) for each in found.points]


def test_an_even_pace_is_a_straight_line() -> None:
    found = plan(PlannedWave(600))
    assert corners(found) == [(0, 0), (10, 600)]
    assert found.ends_at == NOON + timedelta(minutes=10)


def test_flat_columns_have_a_rate_too() -> None:
    assert corners(plan(PlannedWave(90), per_minute=30.0, pace=None)) == [(0, 0), (3, 90)]


def test_soaks_lie_between_waves_and_not_after_the_last_one() -> None:
    found = plan(PlannedWave(60, soak=600), PlannedWave(120, soak=900))
    assert corners(found) == [(0, 0), (1, 60), (11, 60), (13, 180)]


def test_a_ramp_gets_faster_with_each_step_up_to_the_pace() -> None:
    ramp = {"from": 10, "factor": 2, "every_succeeded": 20}
    found = plan(PlannedWave(100), pace=pace(per_minute=40, ramp=ramp))
    assert corners(found) == [(0, 0), (2, 20), (3, 40), (4.5, 100)]


def test_after_an_edit_a_ramp_goes_on_with_the_devices_that_have_succeeded() -> None:
    ramp = {"from": 10, "factor": 2, "every_succeeded": 20}
    found = plan(PlannedWave(30), pace=pace(per_minute=40, ramp=ramp), sent=35, succeeded=30)
    assert corners(found) == [(0, 35), (0.5, 45), (1, 65)]


def test_closed_windows_are_flat() -> None:
    windows = [{"name": "night", "kind": "allow", "cron": "0 22 * * *", "duration": "1h"}]
    schedule = ScheduleRule.model_validate({"windows": windows})
    found = plan(PlannedWave(90), pace=pace(per_minute=1), schedule=schedule)
    assert corners(found) == [(0, 0), (600, 0), (660, 60), (2040, 60), (2070, 90)]


def test_nothing_is_sent_before_the_schedule_starts() -> None:
    schedule = ScheduleRule.model_validate({"start": "2027-03-01T12:05:00Z"})
    assert corners(plan(PlannedWave(60), schedule=schedule)) == [(0, 0), (5, 0), (6, 60)]


def test_a_plan_is_cut_where_the_schedule_ends() -> None:
    schedule = ScheduleRule.model_validate({"end": "2027-03-01T12:05:00Z"})
    found = plan(PlannedWave(600), schedule=schedule)
    assert corners(found) == [(0, 0), (5, 300)]
    assert found.ends_at is None


def test_the_limit_on_bytes_may_be_slower_than_the_pace() -> None:
    found = plan(PlannedWave(30), pace=pace(bytes={"per_second": "1KiB"}), firmware_size=2048)
    assert corners(found) == [(0, 0), (1, 30)]


@pytest.mark.parametrize(
    "rule", [None, PaceRule(), PaceRule.model_validate({"bytes": {"per_second": "1KiB"}})], ids=["none", "cap", "bytes"]
)
def test_without_devices_per_minute_there_is_no_plan(rule: PaceRule | None) -> None:
    assert ideal(PlanFacts(NOON, 0, 0, [PlannedWave(10)], pace=rule, firmware_size=10)) is None


def test_without_the_size_that_the_pace_needs_there_is_no_plan() -> None:
    rule = pace(bytes={"per_second": "1KiB"})
    assert ideal(PlanFacts(NOON, 0, 0, [PlannedWave(10)], pace=rule)) is None


def test_windows_that_stay_closed_leave_the_end_open() -> None:
    window = {"name": "w", "kind": "allow", "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}
    found = plan(PlannedWave(10), schedule=ScheduleRule.model_validate({"windows": [window]}))
    assert (corners(found), found.ends_at) == ([(0, 0)], None)


def test_a_plan_of_decades_is_cut() -> None:
    found = plan(PlannedWave(2**31 - 1), pace=pace(per_minute=1))
    assert found.ends_at is None


@given(
    st.lists(st.builds(PlannedWave, st.integers(0, 10**6), st.floats(0, 10**6)), max_size=20),
    st.integers(1, 10**6),
    st.none() | st.tuples(st.integers(1, 1000), st.floats(1, 1000), st.integers(1, 1000)),
    st.booleans(),
)
def test_every_plan_rises_in_few_points(
    waves: list[PlannedWave], per_minute: int, ramp: tuple[int, float, int] | None, nights: bool
) -> None:
    rule: dict[str, Any] = {"per_minute": per_minute}
    if ramp:
        rule["ramp"] = dict(zip(("from", "factor", "every_succeeded"), ramp, strict=True))
    windows = [{"name": "night", "kind": "allow", "cron": "30 23 * * *", "duration": "2h"}] if nights else []
    schedule = ScheduleRule.model_validate({"windows": windows})
    found = ideal(PlanFacts(NOON, 7, 7, waves, pace=PaceRule.model_validate(rule), schedule=schedule))
    assert found is not None
    assert len(found.points) <= MAX_PLAN_POINTS
    assert found.points[0] == PlanPoint(NOON, 7)
    for before, after in pairwise(found.points):
        assert before.at <= after.at
        assert before.devices <= after.devices
    total = 7 + sum(each.devices for each in waves)
    assert found.points[-1].devices <= total
    if found.ends_at is not None:
        assert (found.points[-1].at, found.points[-1].devices) == (found.ends_at, total)


def test_a_plan_is_read_between_its_points() -> None:
    points = plan(PlannedWave(600)).points
    assert [at(points, NOON + timedelta(minutes=each)) for each in (-1, 0, 5, 10, 11)] == [0, 0, 300, 600, 600]


def test_each_plan_holds_until_the_next_one() -> None:
    later = NOON + timedelta(minutes=5)
    second = Plan((PlanPoint(later, 200), PlanPoint(later + timedelta(minutes=1), 600)), None)
    found = in_turn([plan(PlannedWave(600)), second])
    assert corners(Plan(found, None)) == [(0, 0), (5, 300), (5, 200), (6, 600)]


def test_a_policy_without_a_plan_leaves_the_one_before_it() -> None:
    first = plan(PlannedWave(600))
    assert in_turn([first, Plan((), None)]) == first.points
    assert in_turn([]) == ()


def test_of_a_soak_that_has_begun_only_the_rest_is_left() -> None:
    rules = [WaveRule.model_validate({"size": 1, "gate": {"soak": each}}) for each in ("1h", "2h")] + [
        WaveRule(name="r")
    ]
    begun = Soak(NOON - timedelta(minutes=20), 0)
    assert soaks_left(rules, 0, None, NOON) == [3600, 7200, 0]
    assert soaks_left(rules, 0, begun, NOON) == [2400, 7200, 0]
    assert soaks_left(rules, 0, begun, NOON + timedelta(days=1)) == [0, 7200, 0]
    assert soaks_left(rules, 2, None, NOON) == [0]
    assert soaks_left([], 0, None, NOON) == []
