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
        (CampaignRunning(CampaignStatus.CREATED), "started", "started"),
        (CampaignRunning(CampaignStatus.PAUSED), "resume", "continues"),
        (CampaignPaused(CampaignStatus.RUNNING), "pause", "PAUSED"),
        (CampaignPaused(CampaignStatus.RUNNING, "too hot."), "pause", "PAUSED: too hot."),
        (SendingStopped(BrakeKind.HALT, "halt"), "pause", "the halt stops sending"),
        (SendingStopped(BrakeKind.FREEZE, "xmas", None, "x"), "pause", "the freeze xmas stops sending: x"),
        (SendingResumed(BrakeKind.FREEZE, "xmas"), "resume", "the freeze xmas no longer stops sending"),
        (WaveOpened(1, 5, 0), "wave", "wave 2 opens: 5 succeeded, 0 failed"),
        (WaveOpened(1, 5, 0, "rest"), "wave", "wave rest opens: 5 succeeded, 0 failed"),
        (TRIP, "trip", "guardrail failures trips: 7 of 57 devices failed (12.0%); abort"),
        (CampaignAborted(CampaignStatus.RUNNING, "by hand"), "ended", "ABORTED: by hand"),
        (CampaignCompleted(CampaignStatus.RUNNING), "ended", "COMPLETED"),
    ],
)
def test_each_marker(event: Event, kind: str, text: str) -> None:
    [found] = markers([(NOON, event)])
    assert (found.at, found.kind.value, found.text) == (NOON, kind, text)
    assert event.word in MARKED


def test_other_events_are_not_marked() -> None:
    assert markers([(NOON, CampaignCreated(3))]) == []
    assert set(EVENTS) > MARKED
