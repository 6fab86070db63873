"""The time that counts for deadlines."""

from __future__ import annotations

import pytest

from rollwave.domain.suspension import MAX_UNSEEN, NOTE_EVERY, Activity, Change

NEVER = Activity(None, None, 0.0, 0.0)


@pytest.mark.parametrize(
    ("activity", "active", "change"),
    [
        (NEVER, True, Change.ACTIVATE),
        (NEVER, False, Change.NONE),
        (Activity(60, 0, 0, 0), True, Change.NONE),
        (Activity(60, NOTE_EVERY + 1, 0, 0), True, Change.NOTE),
        (Activity(60, MAX_UNSEEN + 1, 0, 0), True, Change.ACTIVATE),
        (Activity(60, MAX_UNSEEN + 1, 0, 0), False, Change.SUSPEND),
        (Activity(60, 1, 0, 0), False, Change.SUSPEND),
        (Activity(None, 3600, 0, 0), True, Change.ACTIVATE),
        (Activity(None, 3600, 0, 0), False, Change.NONE),
        (Activity(-3600, 1, 0, 0), True, Change.NOTE),
        (Activity(60, -3600, 0, 0), True, Change.NOTE),
    ],
)
def test_what_a_look_changes(activity: Activity, active: bool, change: Change) -> None:
    assert activity.change(active=active) is change


def test_deadlines_are_later_by_a_suspension_until_all_were_set_since() -> None:
    assert Activity(0, 0, 500, 100).extension(60) == 100
    assert Activity(59, 0, 500, 100).extension(60) == 100
    assert Activity(60, 0, 500, 100).extension(60) == 0
    assert NEVER.extension(60) == 0
