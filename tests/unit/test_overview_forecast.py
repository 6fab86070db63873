"""When a campaign will be done, or why nobody can say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.forecast import STEPS, Forecast, ForecastFacts, forecast, rate_per_minute, recent
from rollwave.domain.overview.timeline import Point

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
TOTAL = 1000


def series(finished_at: Callable[[float], float], minutes: int, *, in_progress: int = 5) -> list[Point]:
    """A point each half minute. ``finished_at``: devices that had finished after so many minutes."""
    points = []
    for half in range(2 * minutes + 1):
        done = round(finished_at(half / 2))
        points.append(Point(NOON + timedelta(minutes=half / 2), TOTAL - done - in_progress, in_progress, 0, done, 0, 0))
    return points


def facts(points: list[Point], status: CampaignStatus = CampaignStatus.RUNNING) -> ForecastFacts:
    return ForecastFacts(points[-1].at if points else NOON, status, points)


def test_an_even_rate_has_an_exact_end() -> None:
    found = forecast(facts(series(lambda minutes: 10 * minutes, 40)))
    assert found.text == "done at about 13:40 UTC"
    assert found.earliest == found.latest == NOON + timedelta(minutes=100)


def test_an_uneven_rate_has_an_early_and_a_late_end() -> None:
    """Half of the last hour 4 devices a minute, half of it 12."""
    found = forecast(facts(series(lambda minutes: 4 * min(minutes, 30) + 12 * max(0.0, minutes - 30), 60)))
    assert found.text == "done between 13:44 and 15:10 UTC"
    assert (found.earliest, found.latest) == (NOON + timedelta(minutes=104), NOON + timedelta(minutes=190))


def test_only_the_last_hour_counts() -> None:
    found = forecast(facts(series(lambda minutes: min(minutes, 60) + 10 * max(0.0, minutes - 60), 120)))
    assert found.text == "done at about 14:34 UTC"


def test_a_pause_in_the_last_hour_does_not_count() -> None:
    points = series(lambda minutes: 10 * (min(minutes, 20) + max(0.0, minutes - 40)), 60)
    still = [
        replace(each, downloading=0, pending=each.pending + each.downloading)
        if 20 <= (each.at - NOON).total_seconds() / 60 <= 40
        else each
        for each in points
    ]
    found = forecast(facts(still))
    assert found.text == "done at about 14:00 UTC"


def test_a_stall_counts() -> None:
    found = forecast(facts(series(lambda minutes: 10 * min(minutes, 20), 60)))
    assert found.latest is None
    assert found.text.startswith("done after ")
    assert found.text.endswith(" UTC at the earliest")


def test_soaks_and_closed_windows_are_added() -> None:
    later = replace(facts(series(lambda minutes: 10 * minutes, 40)), held_for=3600.0)
    found = forecast(later)
    assert found.text == "done at about 14:40 UTC"
    assert [each.low for each in found.band] == [400, 400, 1000]


def test_another_day_is_named() -> None:
    found = forecast(facts(series(lambda minutes: 0.8 * min(minutes, 30) + 0.4 * max(0.0, minutes - 30), 60)))
    assert found.text == "done between 2027-03-02 09:05 and 2027-03-03 05:10 UTC"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"status": CampaignStatus.CREATED}, "no forecast: not started yet"),
        ({"status": CampaignStatus.PAUSED}, "no forecast while paused"),
        ({"status": CampaignStatus.COMPLETED, "ended_at": NOON}, "completed at 12:00 UTC"),
        ({"status": CampaignStatus.ABORTED, "ended_at": NOON - timedelta(days=1)}, "aborted at 2027-02-28 12:00 UTC"),
        ({"status": CampaignStatus.ABORTED}, "aborted"),
        ({"stopped": "sending is halted"}, "no forecast: sending is halted"),
        ({"being_targeted": True}, "no forecast while devices are being targeted"),
        ({"awaits_approval_of": "canary"}, "no forecast: wave canary waits for approval"),
        ({"points": []}, "no forecast while devices are being targeted"),
    ],
)
def test_why_there_is_none(changed: dict[str, object], text: str) -> None:
    found = forecast(replace(facts(series(lambda minutes: 10 * minutes, 40)), **changed))  # type: ignore[arg-type]
    assert found == Forecast(text)


def test_there_is_none_before_ten_devices_have_finished() -> None:
    assert forecast(facts(series(lambda minutes: minutes, 9))).text == (
        "no forecast before 10 devices have finished (9 so far)"
    )
    assert forecast(facts(series(lambda minutes: minutes, 10))).earliest is not None


def test_a_campaign_that_waits_only_for_its_completion_needs_none() -> None:
    points = [Point(NOON, 0, 0, 0, TOTAL, 0, 0)]
    assert forecast(facts(points)).text == "every device has finished"


def test_devices_that_finish_more_than_an_hour_apart() -> None:
    points = series(lambda minutes: 20 * min(minutes, 1), 200, in_progress=0)
    assert forecast(facts(points)).text == "no forecast: no device finished in the last hour"


@given(st.lists(st.integers(0, 50), min_size=20, max_size=150))
def test_every_forecast_is_in_the_future_and_its_band_is_in_order(steps: list[int]) -> None:
    done, points = 0, []
    for number, each in enumerate(steps):
        done += each
        points.append(Point(NOON + timedelta(seconds=30 * number), 10_000 - done - 5, 5, 0, done, 0, 0))
    found = forecast(facts(points))
    assert found.text
    if found.earliest is None:
        assert found.latest is None
        assert found.band == ()
        return
    assert points[-1].at < found.earliest
    assert found.latest is None or found.earliest <= found.latest
    for before, after in pairwise(found.band):
        assert before.at < after.at
        assert before.low <= after.low <= after.high <= 10_000


def test_the_present_rate_is_that_of_the_last_minutes() -> None:
    points = series(lambda minutes: 100 * minutes if minutes < 5 else 500 + 8 * (minutes - 5), 30)
    assert rate_per_minute(points, points[-1].at) == 8.0
    assert rate_per_minute(points[:1], NOON + timedelta(seconds=5)) is None, "too short"
    assert rate_per_minute([], NOON) is None


def test_the_recent_rates_add_up() -> None:
    points = series(lambda minutes: minutes * minutes, 30)
    found = recent(points, points[-1].at)
    assert len(found) == STEPS
    assert found == sorted(found), "it gets faster"
    assert sum(found) * 1 == pytest.approx(900), "30 parts of one minute"
    assert recent([], NOON) == recent(points[:1], NOON) == []
