"""The devices and the campaigns of the demo are such that its story, and what goes on after it, come out."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from rollwave.demo import afterwards, scenario
from rollwave.demo.devices import BAD, DEVICES, FREE, GOOD, NEXT, NORTH, SOUTH, WORSE, behaviour, groups, revision, site
from rollwave.domain.policy.document.model import PolicyDocument, ScheduleRule
from rollwave.domain.policy.windows import opening
from rollwave.mqtt.payload import Command

SOUTHERN = sorted(device for device in DEVICES if site(device) == SOUTH)


def fails(device: str, version: str) -> bool:
    return behaviour(device, Command(1, "http://a.invalid", version, "")) is not None


def test_the_groups_hold_the_devices_of_their_site_with_their_labels() -> None:
    found = {group: {each["device_id"]: each["attributes"] for each in members} for group, members in groups()}
    assert found["all"] == found[NORTH] | found[SOUTH]
    assert set(found["all"]) == set(DEVICES)
    assert {labels["site"] for labels in found[SOUTH].values()} == {SOUTH}
    assert Counter(labels["revision"] for labels in found["all"].values()) == {"A": 204, "B": 96}
    assert site("pump-17") == NORTH


def test_the_canary_wave_has_no_device_on_which_the_bad_release_fails() -> None:
    canaries = sorted(DEVICES)[:15]  # 5 percent, in the order of their ids
    assert not [each for each in canaries if fails(each, BAD)]
    assert {revision(each) for each in DEVICES if fails(each, BAD)} == {"B"}
    assert not [each for each in DEVICES for version in (GOOD, NEXT, FREE) if fails(each, version)]


def test_the_release_to_the_south_goes_on_for_ten_minutes_and_never_stops_itself() -> None:
    policy = PolicyDocument.model_validate(afterwards.SPREADING)
    assert policy.pace
    assert policy.pace.per_minute
    assert len(SOUTHERN) / policy.pace.per_minute > 10
    # It is the fifth campaign of the demo, and its queue is in the order of the hash.
    queue = sorted(SOUTHERN, key=lambda device: hashlib.md5(f"5:{device}".encode()).hexdigest())
    # Devices in progress may end in another order: three failures more than those that were due.
    failed = [sum(fails(each, WORSE) for each in queue[:ended]) + 3 for ended in range(1, len(queue) + 1)]
    [rule] = afterwards.SPREADING["guardrails"]
    limit = Fraction(rule["threshold"].rstrip("%")) / 100
    assert all(
        Fraction(count, ended) <= limit for ended, count in enumerate(failed, 1) if ended >= rule["min_finished"]
    )
    assert Fraction(failed[-1] - 3, len(SOUTHERN)) > limit / 2  # and an operator sees it


@pytest.mark.parametrize("hour", range(24))
def test_the_night_of_the_north_is_hours_away_whenever_the_demo_runs(hour: int) -> None:
    now = datetime(2027, 1, 11, hour, 17, tzinfo=UTC)
    schedule = ScheduleRule.model_validate(afterwards.at_night(now)["schedule"])
    found = opening(schedule.windows, ZoneInfo(schedule.time_zone), None, now)
    assert not found.open
    assert found.until
    assert found.until - now > timedelta(hours=12)


@pytest.mark.parametrize("rules", [scenario.POLICY, afterwards.SPREADING, afterwards.at_night(datetime.now(UTC))])
def test_the_policies_are_documents(rules: dict[str, object]) -> None:
    PolicyDocument.model_validate(rules)
