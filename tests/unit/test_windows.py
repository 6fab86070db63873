"""Time windows: zones, clock changes, cutoff, deny, several windows at once; compared with an oracle by brute force."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwave.domain.policy.document.model import Window
from rollwave.domain.policy.windows import (
    Opening,
    Openings,
    Span,
    check_cron,
    next_openings,
    opening,
    shown_zone,
    zone_of,
)
from tests.window_oracle import CRONS, MINUTE, assert_agrees, assert_agrees_around_changes, by_changes, window

BERLIN, TOKYO = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo")


NIGHT = window(name="night", cron="0 2 * * *", duration="2h", cutoff="20m", time_zone="device")
YEAR_END = window(name="year-end", kind="deny", start="2027-12-18T00:00:00Z", end="2028-01-07T00:00:00Z")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("now", "device", "is_open", "until"),
    [
        ("2027-01-11T01:59:59+09:00", TOKYO, False, "2027-01-11T02:00:00+09:00"),
        ("2027-01-11T02:00:00+09:00", TOKYO, True, "2027-01-11T03:40:00+09:00"),
        ("2027-01-11T03:39:59+09:00", TOKYO, True, "2027-01-11T03:40:00+09:00"),
        ("2027-01-11T03:40:00+09:00", TOKYO, False, "2027-01-12T02:00:00+09:00"),
        ("2027-01-11T02:00:00+09:00", BERLIN, False, "2027-01-11T02:00:00+01:00"),
        ("2027-01-11T02:00:00+00:00", None, True, "2027-01-11T03:40:00+00:00"),
        # There is no 02:00 on this night, so it opens right after the change; two hours are elapsed time.
        ("2027-03-28T01:59:59+01:00", BERLIN, False, "2027-03-28T03:00:00+02:00"),
        ("2027-03-28T03:00:00+02:00", BERLIN, True, "2027-03-28T04:40:00+02:00"),
        # 02:00 comes twice on this night, and it opens once.
        ("2027-10-31T02:30:00+02:00", BERLIN, True, "2027-10-31T02:40:00+01:00"),
        ("2027-10-31T02:40:00+01:00", BERLIN, False, "2027-11-01T02:00:00+01:00"),
    ],
)
def test_a_window_opens_in_the_zone_of_the_device(now: str, device: tzinfo | None, is_open: bool, until: str) -> None:
    assert opening([NIGHT], UTC, device, at(now)) == Opening(is_open, at(until))


def test_a_deny_window_wins_and_without_an_allow_window_every_other_time_is_open() -> None:
    during = at("2027-12-20T02:30:00Z")
    assert opening([NIGHT, YEAR_END], UTC, None, during) == Opening(False, at("2028-01-07T02:00:00Z"))
    assert opening([NIGHT, YEAR_END], UTC, None, during).denied_by == "year-end"
    assert opening([YEAR_END], UTC, None, during) == Opening(False, at("2028-01-07T00:00:00Z"))
    assert opening([YEAR_END], UTC, None, at("2028-01-07T00:00:00Z")) == Opening(True, None)
    assert opening([NIGHT, YEAR_END], UTC, None, at("2028-01-07T00:00:00Z")).denied_by is None
    assert opening([], UTC, None, during) == Opening(True, None)


def test_each_opening_is_cut_first_and_then_they_unite() -> None:
    early, late = window(cron="0 1 * * *", duration="2h", cutoff="30m"), window(cron="30 2 * * *", duration="1h")
    assert opening([early, late], UTC, None, at("2027-01-11T01:00:00Z")) == Opening(True, at("2027-01-11T03:30:00Z"))
    every_hour = window(cron="0 * * * *", duration="90m", cutoff="45m")
    assert opening([every_hour], UTC, None, at("2027-01-11T01:00:00Z")) == Opening(True, at("2027-01-11T01:45:00Z"))


def test_an_unknown_zone_counts_as_none() -> None:
    assert zone_of("Europe/Atlantis") is None
    assert zone_of(None) is None
    nowhere = window(cron="0 2 * * *", duration="1h", time_zone="Europe/Atlantis")
    assert opening([nowhere], TOKYO, None, at("2027-01-11T02:00:00+09:00")).open
    assert shown_zone([nowhere], TOKYO, BERLIN) is TOKYO
    assert shown_zone([nowhere, NIGHT], TOKYO, BERLIN) is BERLIN


def test_windows_that_touch_each_other_for_ever_have_an_answer() -> None:
    always = window(cron="* * * * *", duration="1m")
    found = opening([always], UTC, None, at("2027-01-11T00:00:00Z"))
    assert found.open
    assert found.until is not None
    assert found.until > at("2027-01-11T16:00:00Z")
    [only] = next_openings([always], UTC, None, at("2027-01-11T00:00:00Z"))
    assert only == Span(at("2027-01-11T00:00:00Z"), None)


def test_the_next_five_openings() -> None:
    found = next_openings([NIGHT, YEAR_END], UTC, BERLIN, at("2027-12-15T03:00:00+01:00"))
    assert found == [
        Span(at("2027-12-15T03:00:00+01:00"), at("2027-12-15T03:40:00+01:00")),
        Span(at("2027-12-16T02:00:00+01:00"), at("2027-12-16T03:40:00+01:00")),
        Span(at("2027-12-17T02:00:00+01:00"), at("2027-12-17T03:40:00+01:00")),
        Span(at("2028-01-07T02:00:00+01:00"), at("2028-01-07T03:40:00+01:00")),
        Span(at("2028-01-08T02:00:00+01:00"), at("2028-01-08T03:40:00+01:00")),
    ]
    assert next_openings([YEAR_END], UTC, None, at("2028-02-01T00:00:00Z")) == [Span(at("2028-02-01T00:00:00Z"), None)]
    over = window(start="2027-01-01T00:00:00Z", end="2027-01-02T00:00:00Z")
    assert next_openings([over], UTC, None, at("2028-02-01T00:00:00Z")) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 2 * * 1-5", None),
        ("0 0 1 1 *", None),
        ("0 0 * * 1#5", None),
        ("0 0 29 2 *", "does not fire within 400 days"),
        ("0 0 * 1 5#5", "does not fire within 400 days of 2027-01-29"),  # the next one: 2032-01-30
        ("0 0 30 2 *", "is not a cron expression"),
        ("every night", "is not a cron expression"),
    ],
)
def test_a_cron_expression_must_fire_within_400_days_at_any_time(expression: str, fault: str | None) -> None:
    found = check_cron(expression)
    assert (found is None) is (fault is None)
    assert fault is None or fault in (found or "")


class Counted(tuple[Window, ...]):
    """Counts how often the windows are read."""

    __slots__ = ()
    asked = 0

    def __iter__(self) -> Iterator[Window]:
        Counted.asked += 1
        return super().__iter__()


def test_an_answer_is_computed_once_and_kept_until_it_changes() -> None:
    windows = Counted([NIGHT])
    cache = Openings(max_kept=2)
    closed, opens = at("2027-01-11T01:00:00+09:00"), at("2027-01-11T02:00:00+09:00")
    assert cache.of(windows, UTC, TOKYO, closed) == Opening(False, opens)
    asked = Counted.asked
    assert cache.of(windows, UTC, TOKYO, opens - MINUTE) == Opening(False, opens)
    assert Counted.asked == asked
    assert cache.of(windows, UTC, TOKYO, opens).open
    assert Counted.asked > asked
    assert cache.of(windows, UTC, TOKYO, closed) == Opening(False, opens), "the clock was set back"
    assert not cache.of((YEAR_END,), UTC, TOKYO, at("2027-12-20T00:00:00Z")).open, "another policy"
    assert cache.of(windows, UTC, BERLIN, closed) == opening([NIGHT], UTC, BERLIN, closed)
    assert cache.of(windows, UTC, TOKYO, opens).open, "dropped, and computed again"


def test_the_kept_answer_names_no_deny_window_that_has_ended() -> None:
    windows, cache = (NIGHT, YEAR_END), Openings()
    assert cache.of(windows, UTC, None, at("2028-01-06T23:59:00Z")).denied_by == "year-end"
    after = cache.of(windows, UTC, None, at("2028-01-07T00:01:00Z"))
    assert (after, after.denied_by) == (Opening(False, at("2028-01-07T02:00:00Z")), None)


# --- The oracle


def offsets(name: str) -> tuple[timedelta | None, ...]:
    """The offsets of a zone from UTC, every 290 hours of ten years."""
    zone, first = ZoneInfo(name), datetime(2020, 1, 1, tzinfo=UTC)
    return tuple((first + timedelta(hours=hours)).astimezone(zone).utcoffset() for hours in range(0, 87_000, 290))


def test_around_every_clock_change_of_ten_years_in_every_zone_each_minute_agrees_with_the_oracle() -> None:
    """Each zone's changes are found. Zones with the same changes and offsets are alike, and one of them is tried."""
    dice = random.Random(2020)
    alike = by_changes(sorted(available_timezones()), 2020, 10)
    assert sum(len(names) for names in alike.values()) == len(available_timezones())
    for changes, names in alike.items():
        assert not changes or len({offsets(name) for name in names}) == 1, names
    assert sum(assert_agrees_around_changes(dice.choice(each), 2020, 10, dice) for each in alike.values()) > 500


MARCH = datetime(2027, 3, 27, tzinfo=UTC)
WINDOWS = st.one_of(
    st.builds(
        lambda cron, hours, zone, kind: window(cron=cron, duration=f"{hours}h", time_zone=zone, kind=kind),
        st.sampled_from(CRONS),
        st.integers(1, 30),
        st.sampled_from([None, "device", "Asia/Tokyo", "America/New_York", "Europe/Atlantis"]),
        st.sampled_from(["allow", "allow", "deny"]),
    ),
    st.builds(
        lambda cron, minutes, cut: window(cron=cron, duration=f"{minutes}m", cutoff=f"{cut * minutes // 10}m"),
        st.sampled_from(CRONS),
        st.integers(10, 200),
        st.integers(0, 9),
    ),
    st.builds(
        lambda start, minutes, kind: window(
            start=(MARCH + start * MINUTE).isoformat(),
            end=(MARCH + (start + minutes) * MINUTE).isoformat(),
            kind=kind,
        ),
        st.integers(-2000, 4000),
        st.integers(1, 3000),
        st.sampled_from(["allow", "deny"]),
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(WINDOWS, max_size=4), st.sampled_from([UTC, BERLIN]), st.sampled_from([None, BERLIN, TOKYO]))
def test_random_windows_agree_with_the_oracle(
    windows: Sequence[Window], default: tzinfo, device: tzinfo | None
) -> None:
    assert_agrees(windows, default, device, datetime(2027, 3, 27, 12, tzinfo=UTC), 36 * 60, every=500)
