"""Events of a campaign as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import (
    AttemptFailed,
    CampaignCreated,
    CampaignMoved,
    CampaignRunning,
    GivenUp,
    Unknown,
    WaveOpened,
)
from rollwave.domain.overview.texts import after_colon
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


def sentence(event: Event) -> str:
    """The event as a sentence without its full stop. It has texts of devices and operators as they wrote them."""
    match event:
        case CampaignCreated():
            text = f"created for {event.devices} devices"
        case CampaignRunning(was=CampaignStatus.CREATED):
            text = "started"
        case CampaignRunning():
            text = f"continues{after_colon(event.reason)}"
        case CampaignMoved():
            text = f"{event.to}{after_colon(event.reason)}"
        case _ if isinstance(event, _PolicyEvent):
            text = _of_policy(event)
        case AttemptFailed():
            code = f" ({event.code})" if event.code else ""
            text = f"{event.device_id} failed{after_colon(event.message)}{code}"
        case GivenUp():
            text = f"{event.device_id} is given up{after_colon(event.message)}"
        case _:
            about = f"{event.device_id} " if event.device_id else ""
            word = event.event if isinstance(event, Unknown) else event.word
            return f"{about}{word.replace('_', ' ')}{after_colon(_list(event.to_detail()))}"
    return f"{text} ({_list(event.more)})" if event.more else text


def _of_policy(event: _PolicyEvent) -> str:
    match event:
        case WaveOpened():
            return f"{_opened(event)}: {event.succeeded} succeeded, {event.failed} failed"
        case WaveChanged():
            now = "has failed its gate" if event.state == WaveState.FAILED else f"is {event.state.replace('_', ' ')}"
            return f"wave {event.name} {now}{after_colon(event.lacking)}"
        case WavePromoted():
            lacking = f", which still waited for: {event.lacking}" if event.lacking else ""
            return f"the gate of wave {event.name} was opened by hand{lacking}{after_colon(event.reason)}"
        case SendingStopped() | SendingResumed():
            return _brake(event)
        case GuardrailTripped():
            return _trip(event)
        case SegmentQuarantined() | SegmentReleased():
            return _segment(event)


def _segment(event: SegmentQuarantined | SegmentReleased) -> str:
    if isinstance(event, SegmentReleased):
        return f"segment {event.segment} is released{after_colon(event.reason)}"
    labels = f" ({group_text(event.labels)})" if event.labels else ""
    return f"segment {event.segment}{labels} is under quarantine{after_colon(event.reason)}"


def _opened(event: WaveOpened) -> str:
    if event.name is None:
        return f"wave {event.wave + 1} opens"
    return f"wave {event.passed} has passed; wave {event.name} opens" if event.passed else f"wave {event.name} opens"


def _brake(event: SendingStopped | SendingResumed) -> str:
    which = f"the {event.kind}" if event.kind is BrakeKind.HALT else f"the {event.kind} {event.name}"
    if isinstance(event, SendingResumed):
        return f"{which} no longer stops sending"
    until = f" until {event.until}" if event.until else ""
    return f"{which} stops sending{until}{after_colon(event.reason)}"


def _trip(event: GuardrailTripped) -> str:
    group = f" for {group_text(event.labels)}" if event.labels else ""
    if event.wave is not None:
        group = f" for wave {event.wave_name or event.wave + 1}"
    share = f"{event.failed} of {event.of} devices failed ({event.value:.1%})"
    return f"guardrail {event.guardrail} trips{group}: {share}; {event.action}"


def _list(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())
