from __future__ import annotations

import pytest

from rollwave.domain.policy.rules import Wave, plan
from rollwave.errors import UnreadableRow


def test_linear_plans_one_wave_over_all_devices() -> None:
    assert plan("linear", 1000, None) == (Wave(0, None),)


@pytest.mark.parametrize(
    ("total", "percent", "first"), [(1000, 5, 50), (1, 5, 1), (0, 5, 1), (30, 5, 2), (10, 100, 10)]
)
def test_canary_plans_a_first_share_and_the_rest(total: int, percent: float, first: int) -> None:
    assert plan("canary", total, percent) == (Wave(0, first), Wave(1, None))


@pytest.mark.parametrize(
    ("strategy", "percent"), [("big-bang", 5), (None, 5), ("canary", None), ("canary", 0), ("canary", 101)]
)
def test_an_unreadable_strategy_is_an_error(strategy: str | None, percent: float | None) -> None:
    with pytest.raises(UnreadableRow):
        plan(strategy, 100, percent)
