"""The form for a new campaign writes the policy document, and is filled from one that it can show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.console.policy_form import GENERAL, read, write
from rollwave.console.policy_values import values_of
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.problems import parse, parse_data
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.presets import PRESETS, preset

CANARY_AT_NIGHT = {
    "wave-0-name": ["canary"],
    "wave-0-size": ["5%"],
    "wave-0-success_rate": ["98"],
    "wave-0-soak": ["2 h"],
    "per_minute": ["1,200"],
    "threshold": ["5"],
    "min_finished": ["20"],
    "trip_action": ["pause"],
    "window": ["window"],
    "window_from": ["22:30"],
    "window_until": ["05:00"],
    "window_day": ["1", "2", "3", "4", "5"],
    "window_cutoff": ["30m"],
    "time_zone": ["Europe/Zurich"],
    "own_zone": ["on"],
}


def test_a_canary_with_a_night_window_is_written_as_the_page_on_windows_writes_it() -> None:
    assert to_data(parse_data(write(CANARY_AT_NIGHT).data)) == {
        "version": 1,
        "order": "hash",
        "waves": [
            {"name": "canary", "size": "5%", "gate": {"success_rate": "98%", "soak": "2h"}},
            {"name": "rest"},
        ],
        "pace": {"per_minute": 1200},
        "guardrails": [{"name": "failures", "threshold": "5%", "min_finished": 20, "action": "pause"}],
        "schedule": {
            "time_zone": "Europe/Zurich",
            "windows": [
                {
                    "name": "window",
                    "kind": "allow",
                    "cron": "30 22 * * 1-5",
                    "duration": "390m",
                    "cutoff": "30m",
                    "time_zone": "device",
                }
            ],
        },
    }


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_can_be_shown_in_the_form_and_comes_out_of_it_with_the_same_meaning(name: str) -> None:
    document = preset(name)
    assert document is not None
    fields = values_of(document)
    assert fields is not None
    assert to_data(parse_data(write(fields).data)) == to_data(document)


def test_what_the_form_writes_fills_the_form_again() -> None:
    fields = values_of(parse_data(write(CANARY_AT_NIGHT).data))
    assert fields is not None
    assert fields["window_day"] == ["1", "2", "3", "4", "5"]
    assert (fields["window_from"], fields["window_until"]) == (["22:30"], ["05:00"])
    assert write(fields).data == write(CANARY_AT_NIGHT).data


@pytest.mark.parametrize(
    "text",
    [
        "guardrails: [{threshold: 1%}, {name: b, threshold: 2%}]",
        "budgets: [{per: site, max_in_flight: 1}, {name: b, per: rack, max_in_flight: 1}]",
        "schedule: {windows: [{kind: deny, cron: '0 2 * * *', duration: 1h}]}",
        "schedule: {windows: [{kind: allow, cron: '*/5 2 * * *', duration: 1m}]}",
        "pace: {bytes: {per_second: 1MiB}}",
        "pace: {per_minute: 10, start_jitter: 1m}",
        "waves: [{size: 1, gate: {on_fail: abort, success_rate: 50%}}, {}]",
        "waves: [{size: 1, max_in_flight: 1}, {}]",
        "waves: [{size: 1}, {select: a == b}]",
        "guardrails: [{codes: [E_BOOT]}]",
        "order: label:rack",
        "retry: {on: []}",
    ],
)
def test_a_document_that_the_form_cannot_show_is_left_to_the_text(text: str) -> None:
    assert values_of(parse(text, Format.YAML)) is None


@pytest.mark.parametrize(
    ("fields", "beside"),
    [
        ({"per_minute": ["many"]}, "per_minute"),
        ({"per_minute": ["0"]}, "per_minute"),
        ({"threshold": ["a lot"]}, "threshold"),
        ({"wave-3-size": ["50"], "wave-3-soak": ["long"]}, "wave-3-soak"),
        ({"wave-3-size": [""]}, "wave-3-size"),
        ({"wave-0-size": ["1%"], "wave-0-select": ["ring ="]}, "wave-0-select"),
        ({"wave-0-size": ["1%"], "wave-0-name": ["rest"]}, "rest_name"),
        ({"window": ["window"], "window_from": ["25:00"], "window_until": ["02:00"]}, "window_from"),
        ({"window": ["window"], "window_from": ["01:00"], "window_until": [""]}, "window_until"),
        ({"time_zone": ["Mars/North"]}, "time_zone"),
        ({"start": ["2027-01-02T00:00"], "end": ["2027-01-01T00:00"]}, "end"),
        ({"ramp_factor": ["2"]}, "ramp_from"),
        ({"threshold": ["1"], "scope": ["segment"]}, "scope"),
        ({"threshold": ["1"], "trip_action": ["quarantine"]}, "trip_action"),
        ({"budget_per": ["site"]}, "budget_max"),
        ({"retry_on": ["overdue"]}, "retry_on"),
        ({"max_attempts": ["1000"]}, "max_attempts"),
        ({"deadline_total": ["0s"]}, "deadline_total"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(fields: dict[str, list[str]], beside: str) -> None:
    document, messages = read(fields)
    assert document is None
    assert beside in messages
    assert GENERAL not in messages


@given(st.dictionaries(st.sampled_from(sorted([*CANARY_AT_NIGHT, "start", "order"])), st.lists(st.text(max_size=9))))
def test_whatever_is_typed_gives_a_document_or_a_message(fields: dict[str, Any]) -> None:
    document, messages = read(fields)
    assert (document is None) == bool(messages)
