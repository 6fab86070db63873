"""Edits that keep the waves that were sent to, presets, warnings, and flat columns shown as a document."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollwave.domain.policy import flat
from rollwave.domain.policy.advice import advice, warnings
from rollwave.domain.policy.document.emit import to_data, to_yaml
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import parse, parse_data
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.edits import check_edit
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.placing import placing_of
from rollwave.domain.policy.presets import PRESETS, preset
from rollwave.domain.policy.rules import Policy
from rollwave.domain.policy.windows import Span
from rollwave.domain.retry import RetryPolicy
from rollwave.errors import Conflict


def document(text: str) -> PolicyDocument:
    return parse(text, Format.YAML)


def with_waves(names: str) -> PolicyDocument:
    *first, last = names.split()
    return parse_data({"waves": [*({"name": name, "size": 1} for name in first), {"name": last}]})


@pytest.mark.parametrize(
    ("old", "new", "current", "accepted"),
    [
        ("a b c", "a b c", 2, True),
        ("a b c", "a b x c", 1, True),
        ("a b c", "a b", 1, True),
        ("a b c", "a b", 2, False),
        ("a b c", "b a c", 1, False),
        ("a b c", "x a b c", 0, False),
        ("a b c", "x y", 0, False),
        ("a b c", "x y", None, True),
        ("a b c", "a x", 0, True),
    ],
)
def test_waves_that_passed_and_the_current_one_stay_in_order(
    old: str, new: str, current: int | None, accepted: bool
) -> None:
    def edit() -> None:
        check_edit(with_waves(old), with_waves(new), current_wave=current, command_is_frozen=False)

    if accepted:
        edit()
    else:
        with pytest.raises(Conflict, match="the waves must begin with a"):
            edit()


def test_a_campaign_without_waves_has_one_that_is_called_all() -> None:
    check_edit(document("{}"), with_waves("all rest"), current_wave=0, command_is_frozen=False)
    with pytest.raises(Conflict, match="the waves must begin with all"):
        check_edit(document("{}"), with_waves("a rest"), current_wave=0, command_is_frozen=False)


def test_the_start_jitter_cannot_change_once_the_command_is_frozen() -> None:
    old, new = document("pace: {start_jitter: 1m}"), document("pace: {start_jitter: 2m}")
    check_edit(old, new, current_wave=None, command_is_frozen=False)
    check_edit(old, old, current_wave=None, command_is_frozen=True)
    with pytest.raises(Conflict, match="start_jitter is part of the command"):
        check_edit(old, new, current_wave=None, command_is_frozen=True)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_read_and_has_a_pace_and_a_guardrail(name: str) -> None:
    found = preset(name)
    assert found is not None
    assert found.guardrails
    ignores = bool(found.schedule and found.schedule.ignore_freezes)
    assert ignores is (name == "emergency")
    assert len(list(warnings(found))) == ignores


def test_warnings_name_what_has_no_limit() -> None:
    assert list(warnings(document("guardrails: []"))) == [
        "pace sets no limit: all devices of a wave are sent to at once",
        "guardrails is empty: failures never stop the campaign",
    ]
    assert list(warnings(document("pace: {per_minute: 1}"))) == []


WINDOW = "schedule: {windows: [{name: off, kind: deny, start: 2027-01-01T00:00:00Z, end: 2027-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("waves: [{name: a, size: 1, gate: {on_fail: pause}}, {}]", ["on_fail has no effect in the gate of wave a"]),
        ("waves: [{size: 1, gate: {on_fail: abort}}, {}]\nguardrails: [{method: sequential}]", []),
        ('waves: [{name: a, size: 1, gate: {on_fail: abort, success_rate: "90%"}}, {}]', []),
        ("pace: {max_in_flight: 1, bytes: {}}", ["pace.bytes has no effect"]),
        ("pace: {bytes: {}}", ["pace.bytes has no effect", "pace sets no limit"]),
        ("pace: {per_minute: 50, ramp: {from: 50, factor: 2, every_succeeded: 1}}", ["pace.ramp has no effect"]),
        ("pace: {per_minute: 51, ramp: {from: 50, factor: 2, every_succeeded: 1}}", []),
        ("guardrails: [{name: g, alpha: 0.05}]", ["alpha has no effect in the guardrail g: its method is ratio"]),
        ("guardrails: [{name: g, alpha: 0.05, method: sequential}]", []),
        ("guardrails: [{name: g, per: [site]}]", ["per has no effect in the guardrail g: its scope is campaign"]),
        ("guardrails: [{name: g, per: [site], scope: segment}]", []),
        ("retry: {delay: 2h}", ["retry.delay has no effect"]),
        ("retry: {delay: 2h, max_delay: 1h}", ["retry.delay has no effect"]),
        ("retry: {delay: 2h, max_delay: 2h}", []),
        ("schedule: {at_end: stop}", ["schedule.at_end has no effect"]),
        ("schedule: {at_end: cancel, end: 2027-01-01T00:00:00Z}", []),
        (WINDOW + ", time_zone: device}]}", ["time_zone has no effect in the window off"]),
        (WINDOW + "}]}", []),
    ],
)
def test_keys_that_have_no_effect_are_warned_of(text: str, said: list[str]) -> None:
    pace = "" if "pace" in text else "\npace: {per_minute: 100}"
    found = list(warnings(document(text + pace)))
    assert [each[: len(start)] for each, start in zip(found, said, strict=True)] == said


def test_the_next_five_openings_are_within_the_start_and_the_end_of_the_schedule() -> None:
    night = 'windows: [{name: night, kind: allow, cron: "0 2 * * *", duration: 2h, cutoff: 20m}]'
    at = datetime(2027, 1, 1, 3, tzinfo=UTC)

    def days(schedule: str) -> list[int]:
        return [each.start.day for each in advice(document(f"schedule: {{{schedule}{night}}}"), at).openings]

    assert days("") == [1, 2, 3, 4, 5]
    assert days("start: 2027-01-11T08:00:00Z, ") == [12, 13, 14, 15, 16]
    assert days("end: 2027-01-02T12:00:00Z, ") == [1, 2]
    zurich = advice(document(f"schedule: {{time_zone: Europe/Zurich, end: 2027-01-02T02:00:00Z, {night}}}"), at)
    assert [(start.hour, end and (end.hour, end.minute)) for start, end in zurich.openings] == [(1, (2, 0))]
    assert advice(document("{}"), at).openings == []
    over = document("schedule: {windows: [{kind: allow, start: 2026-01-01T00:00:00Z, end: 2026-01-02T00:00:00Z}]}")
    assert advice(over, at).warnings[-1] == "the windows do not open within 400 days: until then nothing is sent"
    always = advice(document('schedule: {windows: [{kind: allow, cron: "* * * * *", duration: 2h}]}'), at)
    assert always.openings == [Span(at, None)]
    assert always.warnings[-1] == "the windows have no effect: they are always open"
    daily = advice(document('schedule: {windows: [{kind: allow, cron: "0 0 * * *", duration: 1d}]}'), at)
    assert daily.openings == [Span(at, None)]
    assert daily.warnings[-1] == "the windows have no effect: they are always open"
    ended = advice(document("schedule: {end: 2026-12-31T00:00:00Z}"), at).warnings[-1]
    assert ended == "schedule.end is in the past: when the campaign is started, it ends without sending anything"


def test_the_example_of_every_key_has_two_keys_without_effect() -> None:
    """It shows `alpha` and `per` in a guardrail of the method ratio and the scope campaign."""
    text = Path("tests/unit/policy_example.yaml").read_text()
    assert [each.partition(" in ")[0] for each in warnings(document(text))] == [
        "alpha has no effect",
        "per has no effect",
    ]


def test_only_windows_of_cron_in_the_zone_of_devices_split_them_by_zone() -> None:
    once = document(WINDOW + ", time_zone: device}]}")
    daily = document('schedule: {windows: [{kind: allow, cron: "0 2 * * *", duration: 2h, time_zone: device}]}')
    assert (placing_of(once).zoned, placing_of(daily).zoned) == (False, True)


@pytest.mark.parametrize(
    ("strategy", "waves"),
    [
        ("linear", []),
        ("canary", [{"name": "canary", "size": "12.5%", "gate": {"min_finished": "100%"}}, {"name": "rest"}]),
    ],
)
def test_flat_columns_are_shown_as_a_document(strategy: str, waves: list[object]) -> None:
    policy = Policy(Guardrail(0.1, 3), 10, 7, 1800.0, 90.0, 86_400.0, RetryPolicy(), strategy, 12.5)
    shown = flat.as_document(policy, tick=10)
    assert shown.get("waves", []) == waves
    assert shown["pace"] == {"per_minute": 60, "max_in_flight": 7}
    assert shown["guardrails"][0].items() >= {"threshold": "10%", "min_finished": 3, "action": "abort"}.items()
    assert shown["deadlines"] == {"answer": "90s", "progress": "30m", "total": "1d"}
    assert to_data(parse_data(shown)) == shown
    assert parse(to_yaml(shown), Format.YAML) == parse_data(shown)
    assert flat.as_document(policy, tick=7)["pace"]["per_minute"] == 85.714285714
