"""How a campaign is shown to an operator."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from rollwave.client.events import Event
from rollwave.client.follow import Look
from rollwave.client.progress import Meter, Snapshot
from rollwave.client.view import campaign, guardrail, in_one_line

DOCUMENT: dict[str, Any] = {
    "id": 7,
    "name": "[bold]spring\x1b[2J",
    "status": "RUNNING",
    "firmware_version": "2.1.0",
    "status_breakdown": {"SUCCESS": 47, "FAILED": 3, "PENDING": 50},
    "abort_threshold": 0.1,
    "abort_min_completed": 1,
    "wave": 1,
    "waves": [
        {"number": 0, "name": "canary", "state": "passed"},
        {"number": 1, "name": "rest", "state": "open"},
    ],
}


TRIPPED: dict[str, Any] = {
    "of": 25,
    "rule": {},
    "value": 0.36,
    "action": "quarantine",
    "failed": 9,
    "devices": [],
    "guardrail": "boots",
}


def drawn(causes: Counter[str], **changes: object) -> str:
    document = DOCUMENT | changes
    snapshot = Snapshot.read(document)
    meter = Meter()
    meter.see(0.0, Snapshot.read(document | {"status_breakdown": {"PENDING": 100}}))
    meter.see(10.0, snapshot)
    console = Console(width=90, record=True, file=io.StringIO(), force_terminal=True)
    console.print(campaign(Look(document, snapshot, [], [], causes), meter))
    return console.export_text()


def test_progress_forecast_and_failures_to_the_guardrail_are_shown() -> None:
    seen = drawn(Counter())
    assert "[bold]spring\\x1b[2J  firmware 2.1.0" in seen
    assert "47 SUCCESS   3 FAILED   50 PENDING" in seen
    assert "6 % failed, trips above 10 %: 3 more failures in a row" in seen
    assert "wave rest (2 of 2): open · 50 of 100 devices done · 5.0 a second · about 10 s to go" in seen


def test_failures_are_grouped_by_cause_with_the_most_frequent_first() -> None:
    seen = drawn(Counter({"a": 1, "disk full": 40, "b": 2, "c": 3, "d": 1})).splitlines()
    assert [line.strip() for line in seen if " failed" in line][1:] == [
        "40 failed: disk full",
        "3 failed: c",
        "2 failed: b",
        "2 failed for other causes",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": "ABORTED"}, "6 % failed, trips above 10 %"),
        ({"abort_threshold": 1.0}, "6 % failed, trips above 100 %"),
        ({"abort_threshold": None}, "the threshold is missing: the campaign is paused"),
        ({"abort_min_completed": 60}, "6 % failed, trips above 10 %: 10 more failures in a row"),
        ({"abort_threshold": 0.0, "status_breakdown": {}}, "0 % failed, trips above 0 %: 1 more failure in a row"),
    ],
)
def test_the_guardrail_is_shown_as_a_sentence(changes: dict[str, object], sentence: str) -> None:
    assert guardrail(Snapshot.read(DOCUMENT | changes)) == sentence


def standing(**changes: object) -> dict[str, object]:
    found: dict[str, object] = {"name": "boots", "action": "pause", "value": 0.04, "limit": 0.013, "threshold": 0.05}
    return found | {"trips_after": 4, "tripped": False} | changes


@pytest.mark.parametrize(
    ("guardrails", "sentence"),
    [
        ([], "no guardrail"),
        ([standing()], "boots: 4 % failed, at least 1.3 %, trips above 5 %: 4 more failures"),
        (
            [standing(labels={"revision": "C"}, finished=3, failed=3, min_finished=5, limit=0.0729, trips_after=0)],
            "boots, revision=C: 3 of 3 failed, at least 7.29 %, trips above 5 %: when 5 have finished",
        ),
        (
            [standing(wave=1, limit=None, finished=50, failed=2, min_finished=20, trips_after=1)],
            "boots, wave rest: 2 of 50 failed, trips above 5 %: 1 more failure",
        ),
        (
            [standing(labels={"revision": None}, tripped=True, action="quarantine")],
            "boots, no revision: under quarantine",
        ),
        (
            [standing(), standing(name="all", method="ratio", limit=None, trips_after=1)],
            "all: 4 % failed, trips above 5 %: 1 more failure",
        ),
        ([standing(limit=None, value=0.5, threshold=1.0, trips_after=None)], "boots: 50 % failed, trips above 100 %"),
        ([standing(tripped=True), standing(name="all", limit=0.04)], "boots has tripped (pause)"),
    ],
)
def test_the_guardrail_of_a_document_that_is_closest_is_shown(
    guardrails: list[dict[str, object]], sentence: str
) -> None:
    waves = [{"number": 0, "name": "canary"}, {"number": 1, "name": "rest", "state": "open"}]
    changes = {"policy_revision": 1, "guardrails": guardrails, "waves": waves}
    assert guardrail(Snapshot.read(DOCUMENT | changes)) == sentence
    assert sentence[:20] in drawn(Counter(), **changes)
    ended = guardrail(Snapshot.read(DOCUMENT | changes | {"status": "COMPLETED"}))
    assert ended == (sentence if "tripped" in sentence or "quarantine" in sentence else "")


def test_a_line_names_what_stops_the_campaign_and_its_present_wave() -> None:
    halt = {"kind": "halt", "name": "halt", "until": None, "reason": "2.1.0 does not boot"}
    freeze = {"kind": "freeze", "name": "year-end", "until": "2027-01-07T00:00:00Z", "reason": None}
    waves = [
        {"number": 0, "name": "canary", "state": "passed"},
        {"number": 1, "name": "early", "state": "awaiting_approval"},
        {"number": 2, "name": "rest", "state": "waiting"},
    ]
    changes = {"stopped_by": [halt, freeze], "waves": waves, "policy_revision": 1, "guardrails": []}
    assert in_one_line(Snapshot.read(DOCUMENT | changes)) == (
        "RUNNING, stopped by halt: 2.1.0 does not boot; freeze year-end until 2027-01-07 00:00 UTC  "
        "50 PENDING · 47 SUCCESS · 3 FAILED · wave early (2 of 3): waits for an approval  (no guardrail)"
    )
    assert "stopped by halt: 2.1.0 does not boot; freeze year-end" in drawn(Counter(), **changes)


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
        ("attempt_failed", "gw-1", {"attempt": 1, "reason": "no\x1bdisk"}, "gw-1 failed: no\\x1bdisk"),
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
    assert read(event, device_id, detail).sentence == sentence


def test_an_event_of_another_version_is_shown_with_all_its_fields() -> None:
    detail = {"attempt": 1, "cause": "reported", "code": "DISK", "final": True, "reason": "disk full"}
    assert read("attempt_failed", "gw-1", detail).sentence == "gw-1 failed: disk full (DISK)"
    assert read("attempt_failed", "gw-1", detail | {"since": "boot"}).sentence == (
        "gw-1 failed: disk full (DISK) (since boot)"
    )
    assert read("wave_opened", None, {"wave": "canary"}).sentence == "wave opened: wave canary"


def test_only_a_failed_attempt_has_a_cause() -> None:
    assert read("attempt_failed", "gw-1", {"attempt": 1, "reason": "no\x1bdisk"}).cause == "no\\x1bdisk"
    assert read("attempt_failed", "gw-1", {"attempt": 1, "reason": ""}).cause == "no reason given"
    assert read("given_up", "gw-1", {"attempt": 1, "reason": "no disk"}).cause is None


def read(event: str, device_id: str | None, detail: dict[str, Any]) -> Event:
    document = {"id": 1, "at": "2027-01-11T08:00:00Z", "event": event, "actor": "engine", "device_id": device_id}
    return Event.read(document | {"detail": detail})
