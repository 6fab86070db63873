"""The events of a campaign that a chart marks, each with a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import (
    CampaignAborted,
    CampaignCompleted,
    CampaignPaused,
    CampaignRunning,
    WaveOpened,
)
from rollwave.domain.policy_events import GuardrailTripped, SendingResumed, SendingStopped

MARKED = frozenset(
    each.word
    for each in (
        *(CampaignRunning, CampaignPaused, CampaignAborted, CampaignCompleted),
        *(WaveOpened, GuardrailTripped, SendingStopped, SendingResumed),
    )
)
"""The names of the events that may be marked."""


class MarkerKind(StrEnum):
    """What a marker is about."""

    STARTED = "started"
    WAVE = "wave"
    PAUSE = "pause"
    RESUME = "resume"
    TRIP = "trip"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Marker:
    """A time at which something happened, with a sentence about it."""

    at: datetime
    kind: MarkerKind
    text: str


def markers(history: Iterable[tuple[datetime, Event]]) -> list[Marker]:
    """The markers of these events, in their order. The first start is another one than those after a pause."""
    found = (_marker(at, event) for at, event in history)
    return [each for each in found if each is not None]


def _marker(at: datetime, event: Event) -> Marker | None:
    kind: MarkerKind
    match event:
        case CampaignRunning(was=was):
            kind, text = _started(was)
        case CampaignPaused(reason=reason):
            kind, text = MarkerKind.PAUSE, _why("Paused", reason)
        case SendingStopped(name=name, reason=reason):
            kind, text = MarkerKind.PAUSE, _why(f"Sending stopped by {_brake(event.kind, name)}", reason)
        case SendingResumed(name=name):
            kind, text = MarkerKind.RESUME, f"Sending goes on: {_brake(event.kind, name)} is over."
        case WaveOpened(wave=wave, name=name):
            kind, text = MarkerKind.WAVE, f"Wave {name or wave} opened."
        case GuardrailTripped(guardrail=name, failed=failed, of=of):
            kind, text = MarkerKind.TRIP, f"Guardrail {name} tripped: {failed:,} of {of:,} devices failed."
        case CampaignAborted(reason=reason):
            kind, text = MarkerKind.ENDED, _why("Aborted", reason)
        case CampaignCompleted():
            kind, text = MarkerKind.ENDED, "Completed."
        case _:
            return None
    return Marker(at, kind, text)


def _started(was: CampaignStatus) -> tuple[MarkerKind, str]:
    return (MarkerKind.STARTED, "Started.") if was is CampaignStatus.CREATED else (MarkerKind.RESUME, "Resumed.")


def _brake(kind: BrakeKind, name: str) -> str:
    return "the halt" if kind is BrakeKind.HALT else f"the freeze {name}"


def _why(what: str, reason: str | None) -> str:
    return f"{what}: {reason.rstrip('.')}." if reason else f"{what}."
