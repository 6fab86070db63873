"""The events that a chart of a campaign marks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import (
    EVENTS,
    CampaignAborted,
    CampaignCompleted,
    CampaignCreated,
    CampaignPaused,
    CampaignRunning,
    WaveOpened,
)
from rollwave.domain.overview.markers import MARKED, markers
from rollwave.domain.policy_events import GuardrailTripped, SendingResumed, SendingStopped

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
TRIP = GuardrailTripped(
    of=57, rule={}, value=0.12, action="abort", failed=7, devices=[], guardrail="failures", limit=None
)


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (CampaignRunning(CampaignStatus.CREATED), "started", "Started."),
        (CampaignRunning(CampaignStatus.PAUSED), "resume", "Resumed."),
        (CampaignPaused(CampaignStatus.RUNNING), "pause", "Paused."),
        (CampaignPaused(CampaignStatus.RUNNING, "too hot."), "pause", "Paused: too hot."),
        (SendingStopped(BrakeKind.HALT, "halt"), "pause", "Sending stopped by the halt."),
        (SendingStopped(BrakeKind.FREEZE, "xmas", None, "x"), "pause", "Sending stopped by the freeze xmas: x."),
        (SendingResumed(BrakeKind.FREEZE, "xmas"), "resume", "Sending goes on: the freeze xmas is over."),
        (WaveOpened(1, 5, 0), "wave", "Wave 1 opened."),
        (WaveOpened(1, 5, 0, "rest"), "wave", "Wave rest opened."),
        (TRIP, "trip", "Guardrail failures tripped: 7 of 57 devices failed."),
        (CampaignAborted(CampaignStatus.RUNNING, "by hand"), "ended", "Aborted: by hand."),
        (CampaignCompleted(CampaignStatus.RUNNING), "ended", "Completed."),
    ],
)
def test_each_marker(event: Event, kind: str, text: str) -> None:
    [found] = markers([(NOON, event)])
    assert (found.at, found.kind.value, found.text) == (NOON, kind, text)
    assert event.word in MARKED


def test_other_events_are_not_marked() -> None:
    assert markers([(NOON, CampaignCreated(3))]) == []
    assert set(EVENTS) > MARKED
