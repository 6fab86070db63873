"""Events in history: the JSON of each, and rows that another version wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import (
    EVENTS,
    MOVES,
    AttemptFailed,
    CampaignAborted,
    CampaignAdopted,
    CampaignCancelled,
    CampaignCompleted,
    CampaignCreated,
    CampaignPaused,
    CampaignRunning,
    CampaignTargeted,
    CountersRepaired,
    DeviceRetried,
    DevicesRetried,
    FinishedRestored,
    GivenUp,
    Unknown,
    WaveOpened,
    read,
)
from rollwave.domain.policy_events import (
    CampaignPlaced,
    GuardrailTripped,
    PolicyEdited,
    SegmentQuarantined,
    SegmentReleased,
    SendingResumed,
    SendingStopped,
    WaveChanged,
    WavePromoted,
)
from rollwave.domain.retry import Reason

S = CampaignStatus

STORED: list[tuple[Event, str, dict[str, Any]]] = [
    (CampaignCreated(3), "created", {"devices": 3}),
    (CampaignTargeted(70_000, 1.5), "targeted", {"devices": 70_000, "seconds": 1.5}),
    (CampaignRunning(S.CREATED), "running", {"from": "CREATED", "to": "RUNNING"}),
    (
        CampaignPaused(S.RUNNING, "paused by an operator"),
        "paused",
        {"from": "RUNNING", "to": "PAUSED", "reason": "paused by an operator"},
    ),
    (CampaignAborted(S.PAUSED, "no"), "aborted", {"from": "PAUSED", "to": "ABORTED", "reason": "no"}),
    (CampaignCancelled(3, "no"), "cancelled", {"devices": 3, "reason": "no"}),
    (DeviceRetried(3, device_id="dev-1"), "retried", {"attempt": 3}),
    (DevicesRetried(3, Reason.NO_ANSWER), "devices_retried", {"devices": 3, "cause": "no_answer"}),
    (CampaignCompleted(S.RUNNING), "completed", {"from": "RUNNING", "to": "COMPLETED"}),
    (PolicyEdited("larger canary", 2), "policy_edited", {"reason": "larger canary", "revision": 2}),
    (WaveOpened(1, 5, 0), "wave_opened", {"wave": 1, "succeeded": 5, "failed": 0}),
    (
        WaveChanged(1, "early", "soaking", "2 more successes"),
        "wave_changed",
        {"wave": 1, "name": "early", "state": "soaking", "lacking": "2 more successes"},
    ),
    (
        WavePromoted(1, "early", "seen enough", "a soak"),
        "wave_promoted",
        {"wave": 1, "name": "early", "reason": "seen enough", "lacking": "a soak"},
    ),
    (CampaignPlaced(70_000, 2), "placed", {"devices": 70_000, "revision": 2}),
    (
        SendingStopped(BrakeKind.FREEZE, "launch", "2027-01-12T00:00:00+00:00", "the launch"),
        "sending_stopped",
        {"kind": "freeze", "name": "launch", "until": "2027-01-12T00:00:00+00:00", "reason": "the launch"},
    ),
    (SendingResumed(BrakeKind.HALT, "halt"), "sending_resumed", {"kind": "halt", "name": "halt"}),
    (CountersRepaired(succeeded=5, failed=2), "counters_repaired", {"succeeded": 5, "failed": 2}),
    (
        CampaignAdopted(waiting=1, in_progress=2, succeeded=3, failed=4, skipped=5),
        "adopted",
        {"waiting": 1, "in_progress": 2, "succeeded": 3, "failed": 4, "skipped": 5},
    ),
    (FinishedRestored(succeeded=7, failed=0), "finished_restored", {"succeeded": 7, "failed": 0}),
    (
        AttemptFailed(1, "disk full", Reason.REPORTED, final=False, device_id="gw-1"),
        "attempt_failed",
        {"attempt": 1, "reason": "disk full", "cause": "reported", "final": False},
    ),
    (
        AttemptFailed(1, "no boot", Reason.REPORTED, final=True, code="E_BOOT", device_id="gw-1"),
        "attempt_failed",
        {"attempt": 1, "reason": "no boot", "cause": "reported", "final": True, "code": "E_BOOT"},
    ),
    (
        GuardrailTripped(
            *(
                25,
                {"name": "failures", "threshold": 0.05},
                0.36,
                "quarantine",
                9,
                ["gw-1", "gw-2"],
                "failures",
            ),
            alpha=0.01,
            limit=0.14,
            labels={"hardware_revision": "C"},
        ),
        "guardrail_tripped",
        {
            "of": 25,
            "rule": {"name": "failures", "threshold": 0.05},
            "value": 0.36,
            "action": "quarantine",
            "failed": 9,
            "devices": ["gw-1", "gw-2"],
            "guardrail": "failures",
            "alpha": 0.01,
            "limit": 0.14,
            "labels": {"hardware_revision": "C"},
        },
    ),
    (
        SegmentQuarantined("too many", 3, "failures"),
        "segment_quarantined",
        {"reason": "too many", "segment": 3, "guardrail": "failures"},
    ),
    (SegmentReleased(3, "fixed"), "segment_released", {"segment": 3, "reason": "fixed"}),
    (
        GivenUp(2, "out of time", Reason.OVERDUE, final=True, device_id="gw-1"),
        "given_up",
        {"attempt": 2, "reason": "out of time", "cause": "overdue", "final": True},
    ),
]

json_objects = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["from", "to", "devices", "reason", "attempt", "cause", "final"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(list(CampaignStatus)),
)


@pytest.mark.parametrize(("event", "word", "detail"), STORED)
def test_the_stored_form_of_an_event_does_not_change(event: Event, word: str, detail: dict[str, Any]) -> None:
    assert event.word == word
    assert json.loads(json.dumps(event.to_detail())) == detail
    assert read(word, detail, event.device_id) == event


def test_every_event_has_its_stored_form_above() -> None:
    assert {word for _, word, _ in STORED} == set(EVENTS)
    assert {status: kind.word.upper() for status, kind in MOVES.items()} == {
        each: each for each in S if each != "CREATED"
    }


def test_fields_of_a_newer_version_are_kept() -> None:
    detail = {"attempt": 1, "reason": "no", "cause": "reported", "final": True, "since": "boot"}
    event = read("attempt_failed", detail, "gw-1")
    assert isinstance(event, AttemptFailed)
    assert event.more == {"since": "boot"}
    assert event.to_detail() == detail


def test_a_failure_that_an_early_version_wrote_is_read() -> None:
    event = read("attempt_failed", {"attempt": 2, "reason": "no"}, "gw-1")
    assert event == AttemptFailed(2, "no", device_id="gw-1")
    assert event.to_detail() == {"attempt": 2, "reason": "no"}


@pytest.mark.parametrize(
    ("word", "detail"),
    [
        ("moved_house", {"to": "north"}),
        ("created", {}),
        ("created", {"devices": "3"}),
        ("created", {"devices": True}),
        ("created", {"devices": None}),
        ("attempt_failed", {"attempt": 1, "reason": "no", "cause": "hit by lightning", "final": True}),
        ("paused", {"from": "ON_HOLD", "to": "PAUSED"}),
    ],
)
def test_what_cannot_be_read_is_unknown_and_complete(word: str, detail: dict[str, Any]) -> None:
    event = read(word, detail, "gw-1")
    assert event == Unknown(word, device_id="gw-1", more=detail)
    assert event.to_detail() == detail


@pytest.mark.parametrize("detail", [[], [1], 3, "words", True, None])
def test_a_detail_that_is_no_object_is_unknown_and_kept(detail: object) -> None:
    """Other SQL may have written such an event. Consumers continue after it."""
    assert read("created", detail, "gw-1") == Unknown("created", device_id="gw-1", more={"detail": detail})


@given(st.sampled_from([*EVENTS, "moved_house"]), json_objects)
def test_reading_never_raises_and_loses_nothing(word: str, detail: dict[str, Any]) -> None:
    event = read(word, detail, "gw-1")
    assert _without_nulls(event.to_detail()) == _without_nulls(detail)


def _without_nulls(detail: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in detail.items() if value is not None}
