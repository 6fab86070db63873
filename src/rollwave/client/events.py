"""A campaign's history as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from rollwave.client.text import visible
from rollwave.domain import events
from rollwave.domain.brakes import BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event as Recorded
from rollwave.domain.events import (
    AttemptFailed,
    CampaignCreated,
    CampaignMoved,
    CampaignRunning,
    GivenUp,
    Unknown,
    WaveOpened,
)
from rollwave.domain.policy.words import WaveState, group_text
from rollwave.domain.policy_events import (
    GuardrailTripped,
    SegmentQuarantined,
    SegmentReleased,
    SendingResumed,
    SendingStopped,
    WaveChanged,
    WavePromoted,
)

_PolicyEvent: TypeAlias = (
    WaveOpened
    | WaveChanged
    | WavePromoted
    | SendingStopped
    | SendingResumed
    | GuardrailTripped
    | SegmentQuarantined
    | SegmentReleased
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a campaign's history: time, actor, and details (``what``). ``event`` is its name."""

    id: int
    at: datetime
    event: str
    actor: str
    what: Recorded

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Event:
        """Read one element of the response of ``GET …/campaigns/{id}/events``."""
        return cls(
            document["id"],
            datetime.fromisoformat(document["at"]),
            document["event"],
            document["actor"],
            events.read(document["event"], document["detail"], document["device_id"]),
        )

    @property
    def device_id(self) -> str | None:
        """The device that the event is about. None: the campaign as a whole."""
        return self.what.device_id

    @property
    def cause(self) -> str | None:
        """The cause of a failed attempt. None: the event is another one."""
        return visible(self.what.message or "no reason given") if isinstance(self.what, AttemptFailed) else None

    @property
    def sentence(self) -> str:
        """The event as a sentence, with control characters escaped."""
        return visible(_sentence(self.what))


def _sentence(event: Recorded) -> str:
    match event:
        case CampaignCreated():
            text = f"created for {event.devices} devices"
        case CampaignRunning(was=CampaignStatus.CREATED):
            text = "started"
        case CampaignRunning():
            text = f"continues{_after_colon(event.reason)}"
        case CampaignMoved():
            text = f"{event.to}{_after_colon(event.reason)}"
        case _ if isinstance(event, _PolicyEvent):
            text = _of_policy(event)
        case AttemptFailed():
            code = f" ({event.code})" if event.code else ""
            text = f"{event.device_id} failed{_after_colon(event.message)}{code}"
        case GivenUp():
            text = f"{event.device_id} is given up{_after_colon(event.message)}"
        case _:
            about = f"{event.device_id} " if event.device_id else ""
            word = event.event if isinstance(event, Unknown) else event.word
            return f"{about}{word.replace('_', ' ')}{_after_colon(_list(event.to_detail()))}"
    return f"{text} ({_list(event.more)})" if event.more else text


def _of_policy(event: _PolicyEvent) -> str:
    match event:
        case WaveOpened():
            return f"{_opened(event)}: {event.succeeded} succeeded, {event.failed} failed"
        case WaveChanged():
            now = "has failed its gate" if event.state == WaveState.FAILED else f"is {event.state.replace('_', ' ')}"
            return f"wave {event.name} {now}{_after_colon(event.lacking)}"
        case WavePromoted():
            lacking = f", which still waited for: {event.lacking}" if event.lacking else ""
            return f"the gate of wave {event.name} was opened by hand{lacking}{_after_colon(event.reason)}"
        case SendingStopped() | SendingResumed():
            return _brake(event)
        case GuardrailTripped():
            return _trip(event)
        case SegmentQuarantined() | SegmentReleased():
            return _segment(event)


def _segment(event: SegmentQuarantined | SegmentReleased) -> str:
    if isinstance(event, SegmentReleased):
        return f"segment {event.segment} is released{_after_colon(event.reason)}"
    labels = f" ({group_text(event.labels)})" if event.labels else ""
    return f"segment {event.segment}{labels} is under quarantine{_after_colon(event.reason)}"


def _opened(event: WaveOpened) -> str:
    if event.name is None:
        return f"wave {event.wave + 1} opens"
    return f"wave {event.passed} has passed; wave {event.name} opens" if event.passed else f"wave {event.name} opens"


def _brake(event: SendingStopped | SendingResumed) -> str:
    which = f"the {event.kind}" if event.kind is BrakeKind.HALT else f"the {event.kind} {event.name}"
    if isinstance(event, SendingResumed):
        return f"{which} no longer stops sending"
    until = f" until {event.until}" if event.until else ""
    return f"{which} stops sending{until}{_after_colon(event.reason)}"


def _trip(event: GuardrailTripped) -> str:
    group = f" for {group_text(event.labels)}" if event.labels else ""
    if event.wave is not None:
        group = f" for wave {event.wave_name or event.wave + 1}"
    share = f"{event.failed} of {event.of} devices failed ({event.value:.1%})"
    return f"guardrail {event.guardrail} trips{group}: {share}; {event.action}"


def _after_colon(text: str | None) -> str:
    return f": {text}" if text else ""


def _list(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())
