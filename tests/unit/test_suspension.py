"""Which time counts for deadlines."""

from __future__ import annotations

import pytest

from rollwave.domain.campaign import LONGEST_UNSEEN_SECONDS, NOTE_EVERY_SECONDS, UNSEEN_SECONDS, Activity, Change

NEVER = Activity(None, None, 0.0, 0.0)


@pytest.mark.parametrize(
    ("activity", "active", "change"),
    [
        (NEVER, True, Change.ACTIVATE),
        (NEVER, False, Change.SUSPEND),
        (Activity(60, 0, 0, 0), True, Change.NONE),
        (Activity(60, NOTE_EVERY_SECONDS + 1, 0, 0), True, Change.NOTE),
        (Activity(60, UNSEEN_SECONDS + 1, 0, 0), True, Change.NOTE),
        (Activity(60, LONGEST_UNSEEN_SECONDS + 1, 0, 0), True, Change.ACTIVATE),
        (Activity(60, UNSEEN_SECONDS + 1, 0, 0), False, Change.SUSPEND),
        (Activity(60, 1, 0, 0), False, Change.SUSPEND),
        (Activity(None, 3600, 0, 0), True, Change.ACTIVATE),
        (Activity(None, 3600, 0, 0), False, Change.NONE),
        (Activity(-3600, 1, 0, 0), True, Change.NOTE),
        (Activity(60, -3600, 0, 0), True, Change.NOTE),
    ],
)
def test_what_each_look_changes_in_the_suspension(activity: Activity, active: bool, change: Change) -> None:
    assert activity.change(active=active) is change


def test_a_gap_between_two_looks_counts_as_a_suspension() -> None:
    a_minute_ago = Activity(3600, 60, 0, 0)
    assert a_minute_ago.change(active=True, heard_for=30) is Change.ACTIVATE
    assert a_minute_ago.change(active=True, heard_for=90) is Change.NOTE
    assert Activity(3600, UNSEEN_SECONDS, 0, 0).change(active=True, heard_for=1) is Change.NOTE


def test_looks_as_rare_as_the_tick_interval_are_no_suspension() -> None:
    an_hour_ago = Activity(86_400, 3600, 0, 0)
    assert an_hour_ago.change(active=True) is Change.ACTIVATE
    assert an_hour_ago.change(active=True, tick=3600) is Change.NOTE


def test_deadlines_are_extended_until_all_were_set_after_the_suspension() -> None:
    assert Activity(0, 0, 500, 100).extension(60) == 100
    assert Activity(59, 0, 500, 100).extension(60) == 100
    assert Activity(60, 0, 500, 100).extension(60) == 0
    assert NEVER.extension(60) == 0
