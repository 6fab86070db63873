"""Halts and freezes: which of them stop a campaign, what the gates say, and when freezes end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rollwave.domain.brakes import Brake, BrakeKind, of_label, thaws_at
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.policy import time_gates
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.rules import Policy, Wave
from rollwave.domain.retry import RetryPolicy

NOW = datetime(2027, 1, 11, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = Policy(Guardrail(0.1), 10, None, 60.0, 60.0, 600.0, RetryPolicy())
RUNS = Facts(now=NOW, status=CampaignStatus.RUNNING, tick=10.0, wave=Wave(0, None))


def freeze(name: str, start: float, end: float, reason: str | None = None) -> Brake:
    """A freeze, from so many hours after now to so many."""
    return Brake(BrakeKind.FREEZE, name, NOW + start * HOUR, NOW + end * HOUR, "key-1", reason)


HALT = Brake(BrakeKind.HALT, "halt", NOW - HOUR, None, "key-1", "bricked devices")


@pytest.mark.parametrize(
    ("freezes", "hours"),
    [
        ([], None),
        ([freeze("later", 1, 2)], None),
        ([freeze("over", -2, 0)], None),
        ([freeze("one", 0, 2)], 2),
        ([freeze("one", -1, 2), freeze("touches", 2, 5), freeze("later", 6, 7)], 5),
        ([freeze("long", -1, 9), freeze("within", 1, 2)], 9),
    ],
)
def test_freezes_without_a_gap_between_them_end_together(freezes: list[Brake], hours: float | None) -> None:
    verdict = time_gates.freeze(POLICY.document, freezes, NOW)
    assert verdict.open is (hours is None)
    assert verdict.until == thaws_at(freezes, NOW) == (None if hours is None else NOW + hours * HOUR)


def test_the_gates_say_who_stopped_sending_and_why() -> None:
    halted = time_gates.halted([HALT])
    assert halted.text == "sending is halted since 2027-01-11 07:00 UTC: bricked devices"
    assert halted.detail == {"since": "2027-01-11T07:00:00+00:00", "by": "key-1", "reason": "bricked devices"}
    assert halted.until is None, "until somebody lifts it"
    frozen = time_gates.freeze(POLICY.document, [freeze("launch", -1, 1, "the launch")], NOW)
    assert frozen.text == "the freeze launch is in force until 2027-01-11 09:00 UTC: the launch"
    assert frozen.detail == {"name": "launch", "by": "key-1", "reason": "the launch"}


def test_an_emergency_ignores_freezes_and_never_a_halt() -> None:
    emergency = replace(POLICY, document=PolicyDocument.model_validate({"schedule": {"ignore_freezes": True}}))
    facts = replace(RUNS, brakes=(HALT, freeze("launch", -1, 1)))
    assert [each.open for each in time_gates.stops(emergency, facts)] == [False, True]
    assert [each.open for each in time_gates.stops(POLICY, facts)] == [False, False]


def test_the_schedule_is_open_from_its_start_to_before_its_end() -> None:
    end = NOW + HOUR
    document = PolicyDocument.model_validate({"schedule": {"start": NOW.isoformat(), "end": end.isoformat()}})
    policy = replace(POLICY, document=document)
    states = [time_gates.stops(policy, replace(RUNS, now=NOW + hours * HOUR))[-1] for hours in (-1, 0, 0.5, 1)]
    assert [each.open for each in states] == [False, True, True, False]
    assert (states[0].until, states[-1].until) == (NOW, None)
    assert states[0].text == "the schedule starts at 2027-01-11 08:00 UTC"
    assert states[-1].text == "the schedule ended at 2027-01-11 09:00 UTC"
    assert [time_gates.has_ended(document, NOW + hours * HOUR) for hours in (0.5, 1)] == [False, True]
    assert not time_gates.has_ended(None, NOW)


NIGHTS = PolicyDocument.model_validate(
    {
        "schedule": {
            "windows": [
                {"name": "night", "kind": "allow", "cron": "0 2 * * *", "duration": "2h", "time_zone": "device"},
                {"name": "off", "kind": "deny", "start": "2027-01-13T00:00:00Z", "end": "2027-01-14T00:00:00Z"},
            ]
        }
    }
)


@pytest.mark.parametrize(
    ("zone", "hours", "text"),
    [
        ("Asia/Tokyo", 0, "window night opens at 2027-01-12 02:00 in Asia/Tokyo (2027-01-11 17:00 UTC)"),
        ("Asia/Tokyo", 8, "window night opens at 02:00 in Asia/Tokyo (17:00 UTC)"),
        ("Asia/Tokyo", 9.5, "inside the windows until 04:00 in Asia/Tokyo (19:00 UTC)"),
        (None, -7, "window night opens at 02:00 UTC"),
        ("Europe/Atlantis", -7, "window night opens at 02:00 UTC"),
        (None, 42, "window off denies sending until 2027-01-14 02:00 UTC"),
    ],
)
def test_the_window_says_until_when_in_the_zone_of_the_devices(zone: str | None, hours: float, text: str) -> None:
    verdict = time_gates.window(NIGHTS, zone, NOW + hours * HOUR)
    assert verdict is not None
    assert verdict.text == text
    assert verdict.open is text.startswith("inside")
    assert verdict.detail["time_zone"] == (zone if zone == "Asia/Tokyo" else "UTC")
    assert verdict.detail.get("unknown_time_zone") == (zone if zone == "Europe/Atlantis" else None)


def test_a_policy_without_windows_has_no_such_gate() -> None:
    assert time_gates.window(None, "Asia/Tokyo", NOW) is None
    assert time_gates.window(PolicyDocument(), "Asia/Tokyo", NOW) is None


def test_a_label_names_a_brake() -> None:
    for brake in (HALT, freeze("launch:1", 0, 1)):
        assert of_label(brake.label) == (brake.kind, brake.name)
