"""The events of a campaign that a chart marks, each with a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import (
    CampaignAborted,
    CampaignCompleted,
    CampaignPaused,
    CampaignRunning,
    WaveOpened,
)
from rollwave.domain.overview.sentences import sentence
from rollwave.domain.policy_events import GuardrailTripped, SendingResumed, SendingStopped


class MarkerKind(StrEnum):
    """What a marker is about."""

    STARTED = "started"
    WAVE = "wave"
    PAUSE = "pause"
    RESUME = "resume"
    TRIP = "trip"
    ENDED = "ended"


_KINDS: Mapping[type[Event], MarkerKind] = {
    CampaignPaused: MarkerKind.PAUSE,
    SendingStopped: MarkerKind.PAUSE,
    SendingResumed: MarkerKind.RESUME,
    WaveOpened: MarkerKind.WAVE,
    GuardrailTripped: MarkerKind.TRIP,
    CampaignAborted: MarkerKind.ENDED,
    CampaignCompleted: MarkerKind.ENDED,
}

MARKED = frozenset({CampaignRunning.word, *(each.word for each in _KINDS)})
"""The names of the events that may be marked."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A time at which something happened, with a sentence about it."""

    at: datetime
    kind: MarkerKind
    text: str


def markers(history: Iterable[tuple[datetime, Event]]) -> list[Marker]:
    """The markers of these events, in their order. Left out: events that are not marked."""
    kinds = ((at, event, _kind(event)) for at, event in history)
    return [Marker(at, kind, sentence(event)) for at, event, kind in kinds if kind is not None]


def _kind(event: Event) -> MarkerKind | None:
    if isinstance(event, CampaignRunning):
        return MarkerKind.STARTED if event.was is CampaignStatus.CREATED else MarkerKind.RESUME
    return _KINDS.get(type(event))
