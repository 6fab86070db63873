"""The rules of a campaign in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rollwave.domain.overview.rules_line import rules_line
from rollwave.domain.policy import flat
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.problems import parse
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.presets import PRESETS
from rollwave.domain.policy.rules import Policy
from rollwave.domain.retry import RetryPolicy

FLAT = Policy(Guardrail(0.1), 10, None, 60.0, 60.0, 600.0, RetryPolicy())

END = "no limit a minute · aborts over 10 % failed"

CASES: list[tuple[str, str]] = [
    ("version: 1", f"all devices in one wave · {END}"),
    (
        """
        waves: [{name: canary, size: 10, gate: {soak: 1h}}, {name: rest}]
        pace: {per_minute: 600}
        schedule: {windows: [{kind: allow, cron: "0 1 * * *", duration: 4h}]}
        """,
        "canary 10, soak 1 h, then the rest · daily 01:00\N{EN DASH}05:00 UTC · 600 a minute · aborts over 10 % failed",
    ),
    (
        """
        waves: [{size: 1}, {size: "2.5%", gate: {approval: true}}, {select: "site=north"}, {size: 4}, {size: 5}, {}]
        guardrails: []
        """,
        (
            "wave-1 1, then wave-2 2.5 %, approval, then wave-3, then 2 more, then the rest"
            " · no limit a minute · no guardrails"
        ),
    ),
    (
        """
        pace: {per_minute: 3000, ramp: {from: 30, factor: 2, every_succeeded: 9}, max_in_flight: 2000}
        budgets: [{per: site, max_in_flight: 2}]
        guardrails:
        - {threshold: "2%", method: sequential, action: pause}
        - {threshold: "20%", scope: segment, per: [revision], action: quarantine}
        - {threshold: "5%", scope: wave}
        - {threshold: "9%"}
        """,
        (
            "all devices in one wave · 30 a minute, growing to 3,000 · at most 2,000 in flight"
            " · at most 2 in flight per site"
            " · pauses over 2 % failed (sequential) · quarantines a revision over 20 % failed"
            " · aborts over 5 % of a wave failed · 1 more"
        ),
    ),
    (
        """
        schedule:
          time_zone: Europe/Berlin
          start: 2027-03-01T08:00:00Z
          end: 2027-04-01T08:00:00+02:00
          ignore_freezes: true
          windows:
          - {kind: allow, cron: "30 22 * * 1-5", duration: 3h, time_zone: device}
          - {kind: deny, cron: "0 0 1 * *", duration: 90m}
          - {kind: deny, start: 2027-03-10T00:00:00Z, end: 2027-03-11T00:00:00Z}
        """,
        (
            "all devices in one wave · from 2027-03-01 08:00 UTC · until 2027-04-01 06:00 UTC"
            " · Mon\N{EN DASH}Fri 22:30\N{EN DASH}01:30 in each device's time zone"
            " · not at cron 0 0 1 * * for 90 min, Europe/Berlin"
            f" · not 2027-03-10 00:00 to 2027-03-11 00:00 UTC · ignores freezes · {END}"
        ),
    ),
]


@pytest.mark.parametrize(("text", "line"), CASES)
def test_a_document_in_one_line(text: str, line: str) -> None:
    assert rules_line(to_data(parse(text, Format.YAML))) == line


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_a_line(name: str) -> None:
    line = rules_line(to_data(parse(PRESETS[name], Format.YAML)))
    assert ("canary" in line) == (name != "emergency")
    assert ("ignores freezes" in line) == (name == "emergency")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "all devices in one wave · 12 a minute · aborts over 10 % failed"),
        (
            {"strategy": "canary", "canary_percent": 5.0, "max_in_flight": 3, "rate": 1},
            "canary 5 %, then the rest · 1.2 a minute · at most 3 in flight · aborts over 10 % failed",
        ),
    ],
)
def test_flat_columns_in_one_line(changed: dict[str, Any], line: str) -> None:
    assert rules_line(flat.as_document(replace(FLAT, **changed), tick=50.0)) == line
