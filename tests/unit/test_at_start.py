"""What Start does now, by the gates that a claim asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rollwave.domain.brakes import Brake, BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.at_start import at_start
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.facts import Facts
from rollwave.domain.policy.rules import Policy, Wave, policy_of

NOW = datetime(2026, 11, 29, 19, 48, tzinfo=UTC)
NIGHT = "schedule: {windows: [{name: night, kind: allow, cron: '0 1 * * *', duration: 4h}]}"


def policy(text: str) -> Policy:
    document = parse(f"version: 1\n{text}", Format.YAML)
    return policy_of(document, tenant_id="north", progress_timeout=60, device_timeout=600, max_attempts=1)


def told(text: str, *brakes: Brake, now: datetime = NOW, heard: bool = True, first: int | None = 15) -> str:
    facts = Facts(now, CampaignStatus.CREATED, 1.0, Wave(0, None), brakes=brakes, heard=heard)
    return at_start(policy(text), facts, first).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "The first 15 devices are sent to at once."),
        (
            "pace: {per_minute: 600, max_in_flight: 10}",
            "The first 10 devices are sent to at once, at most 600 a minute.",
        ),
        (
            "pace: {per_minute: 600, ramp: {from: 30, factor: 2, every_succeeded: 9}}",
            "The first 15 devices are sent to at once, at most 30 a minute.",
        ),
        (NIGHT, "Nothing is sent before 2026-11-30 01:00 UTC, in 5 h 12 min."),
    ],
)
def test_what_start_does(text: str, expected: str) -> None:
    assert told(text) == expected


def test_a_minute_later_the_answer_is_the_same() -> None:
    """Streams send an overview when it changes: the present time is no change."""
    later = NOW + timedelta(minutes=1)
    rules = policy("pace: {per_minute: 600}")
    answers = [
        at_start(rules, Facts(now, CampaignStatus.CREATED, 1.0, Wave(0, None), heard=True), 15) for now in (NOW, later)
    ]
    assert answers[0] == answers[1]
    assert answers[0].at_once


def test_a_wave_without_devices_sends_nothing() -> None:
    assert told("", first=0) == "Nothing is sent: the first wave has no devices."


def test_inside_a_window_it_says_when_that_closes() -> None:
    inside = datetime(2026, 11, 30, 2, 0, tzinfo=UTC)
    assert told(NIGHT, now=inside) == "The window is open until 05:00 UTC. The first 15 devices are sent to at once."


def test_devices_with_their_own_zone_are_named() -> None:
    own = NIGHT.replace("duration: 4h", "duration: 4h, time_zone: device")
    assert told(own).endswith(" Devices with a time zone of their own wait for the window there.")


def test_a_halt_opens_at_no_time() -> None:
    halt = Brake(BrakeKind.HALT, "halt", NOW - timedelta(hours=1), None, "key", "boot loop")
    assert told(NIGHT, halt) == "Nothing is sent: sending is halted since 2026-11-29 18:48 UTC: boot loop."


def test_after_a_freeze_the_window_counts() -> None:
    freeze = Brake(BrakeKind.FREEZE, "sale", NOW, NOW + timedelta(hours=12), "key")
    text = told(NIGHT, freeze)  # until 07:48, when the window of that night is over
    assert text.startswith(
        "Nothing is sent before 2026-12-01 01:00 UTC, in 29 h 12 min: the freeze sale is in force until"
    )


def test_without_a_listener_nothing_is_sent() -> None:
    assert told("", heard=False).startswith("Nothing is sent: no listener is subscribed")


def test_an_uncounted_wave_has_no_number() -> None:
    assert told("", first=None) == "Devices are sent to at once."
