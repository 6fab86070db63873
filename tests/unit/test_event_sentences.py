"""Events of a campaign as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from rollwave.domain import events
from rollwave.domain.overview.sentences import sentence as sentence_of

TRIPPED: dict[str, Any] = {
    "of": 25,
    "rule": {},
    "value": 0.36,
    "action": "quarantine",
    "failed": 9,
    "devices": [],
    "guardrail": "boots",
}


@pytest.mark.parametrize(
    ("event", "device_id", "detail", "sentence"),
    [
        ("created", None, {"devices": 3}, "created for 3 devices"),
        ("running", None, {"from": "CREATED", "to": "RUNNING"}, "started"),
        ("running", None, {"from": "PAUSED", "to": "RUNNING"}, "continues"),
        ("running", None, {"from": "PAUSED", "to": "RUNNING", "reason": "again"}, "continues: again"),
        ("paused", None, {"from": "RUNNING", "to": "PAUSED", "reason": "by an operator"}, "PAUSED: by an operator"),
        ("aborted", None, {"from": "RUNNING", "to": "ABORTED", "reason": "2 of 4 failed"}, "ABORTED: 2 of 4 failed"),
        ("completed", None, {"from": "RUNNING", "to": "COMPLETED"}, "COMPLETED"),
        ("targeted", None, {"devices": 70000, "seconds": 1.5}, "targeted: devices 70000, seconds 1.5"),
        ("counters_repaired", None, {"failed": 2, "succeeded": 5}, "counters repaired: failed 2, succeeded 5"),
        (
            "adopted",
            None,
            {"failed": 4, "skipped": 5, "waiting": 1, "succeeded": 3, "in_progress": 2},
            "adopted: failed 4, skipped 5, waiting 1, succeeded 3, in_progress 2",
        ),
        ("finished_restored", None, {"failed": 0, "succeeded": 7}, "finished restored: failed 0, succeeded 7"),
        ("wave_opened", None, {"wave": 1, "succeeded": 5, "failed": 0}, "wave 2 opens: 5 succeeded, 0 failed"),
        ("attempt_failed", "gw-1", {"attempt": 1, "reason": "no\x1bdisk"}, "gw-1 failed: no\x1bdisk"),
        (
            "attempt_failed",
            "gw-1",
            {"attempt": 1, "cause": "reported", "final": True, "reason": "disk full"},
            "gw-1 failed: disk full",
        ),
        (
            "given_up",
            "gw-1",
            {"attempt": 1, "cause": "overdue", "final": True, "reason": "out of time"},
            "gw-1 is given up: out of time",
        ),
        (
            "guardrail_tripped",
            None,
            {**TRIPPED, "labels": {"revision": "C"}},
            "guardrail boots trips for revision=C: 9 of 25 devices failed (36.0%); quarantine",
        ),
        (
            "guardrail_tripped",
            None,
            {**TRIPPED, "wave": 0},
            "guardrail boots trips for wave 1: 9 of 25 devices failed (36.0%); quarantine",
        ),
        (
            "guardrail_tripped",
            None,
            {**TRIPPED, "wave": 0, "wave_name": "canary"},
            "guardrail boots trips for wave canary: 9 of 25 devices failed (36.0%); quarantine",
        ),
        (
            "wave_opened",
            None,
            {"wave": 1, "succeeded": 5, "failed": 0, "name": "rest", "passed": "canary"},
            "wave canary has passed; wave rest opens: 5 succeeded, 0 failed",
        ),
        (
            "wave_changed",
            None,
            {"wave": 0, "name": "canary", "state": "awaiting_approval", "lacking": "a person opens it"},
            "wave canary is awaiting approval: a person opens it",
        ),
        (
            "wave_promoted",
            None,
            {"wave": 0, "name": "canary", "reason": "checked", "lacking": "the soak"},
            "the gate of wave canary was opened by hand, which still waited for: the soak: checked",
        ),
        ("sending_stopped", None, {"kind": "halt", "name": "halt", "reason": "bad"}, "the halt stops sending: bad"),
        (
            "sending_stopped",
            None,
            {"kind": "freeze", "name": "year-end", "until": "2027-01-07T00:00:00Z"},
            "the freeze year-end stops sending until 2027-01-07T00:00:00Z",
        ),
        ("sending_resumed", None, {"kind": "halt", "name": "halt"}, "the halt no longer stops sending"),
        (
            "segment_quarantined",
            None,
            {"segment": 2, "reason": "too many", "guardrail": "boots"},
            "segment 2 is under quarantine: too many",
        ),
        (
            "segment_quarantined",
            None,
            {"segment": 2, "reason": "too many", "guardrail": "boots", "labels": {"revision": "C"}},
            "segment 2 (revision=C) is under quarantine: too many",
        ),
        (
            "wave_changed",
            None,
            {"wave": 0, "name": "canary", "state": "failed", "lacking": "1 of 5 succeeded"},
            "wave canary has failed its gate: 1 of 5 succeeded",
        ),
        ("segment_released", None, {"segment": 2}, "segment 2 is released"),
        ("moved_house", "gw-1", {"to": "north"}, "gw-1 moved house: to north"),
    ],
)
def test_events_are_shown_as_sentences(
    event: str, device_id: str | None, detail: dict[str, Any], sentence: str
) -> None:
    assert said(event, device_id, detail) == sentence


def test_an_event_of_another_version_is_shown_with_all_its_fields() -> None:
    detail = {"attempt": 1, "cause": "reported", "code": "DISK", "final": True, "reason": "disk full"}
    assert said("attempt_failed", "gw-1", detail) == "gw-1 failed: disk full (DISK)"
    assert said("attempt_failed", "gw-1", detail | {"since": "boot"}) == ("gw-1 failed: disk full (DISK) (since boot)")
    assert said("wave_opened", None, {"wave": "canary"}) == "wave opened: wave canary"


def said(event: str, device_id: str | None, detail: dict[str, Any]) -> str:
    return sentence_of(events.read(event, detail, device_id))
