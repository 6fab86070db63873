"""The events that only a policy document, a halt or a freeze causes. :mod:`rollwave.domain.events` lists all events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from rollwave.domain.brakes import BrakeKind
from rollwave.domain.event import Event, Stored


@dataclass(frozen=True, slots=True)
class PolicyEdited(Event):
    """The policy of the campaign was replaced: the new revision is in force at the next claim."""

    word: ClassVar = "policy_edited"
    reason: Annotated[str | None, Stored("why, in words for people")]
    revision: Annotated[int, Stored("number of the new revision")]


@dataclass(frozen=True, slots=True)
class WaveChanged(Event):
    """The gate of the present wave of a policy document changed its state."""

    word: ClassVar = "wave_changed"
    wave: Annotated[int, Stored("number of that wave, the first is 0")]
    name: Annotated[str, Stored("name of that wave")]
    state: Annotated[str, Stored("`open`, `soaking`, `awaiting_approval` or `failed`")]
    lacking: Annotated[str | None, Stored("what the gate waits for, or why it failed, in words for people")] = None


@dataclass(frozen=True, slots=True)
class WavePromoted(Event):
    """A person opened the gate of a wave."""

    word: ClassVar = "wave_promoted"
    wave: Annotated[int, Stored("number of that wave, the first is 0")]
    name: Annotated[str, Stored("name of that wave")]
    reason: Annotated[str | None, Stored("why, in that person's words")] = None
    lacking: Annotated[str | None, Stored("what the gate still waited for, in words for people")] = None


@dataclass(frozen=True, slots=True)
class CampaignPlaced(Event):
    """The devices of the campaign that were never sent to have their places by the policy document in force."""

    word: ClassVar = "placed"
    devices: Annotated[int, Stored("devices that wait for their first command")]
    revision: Annotated[int, Stored("of the document")]


@dataclass(frozen=True, slots=True)
class SendingStopped(Event):
    """A halt or a freeze of the tenant stops the campaign, which keeps its status. The actor set the brake."""

    word: ClassVar = "sending_stopped"
    kind: Annotated[BrakeKind, Stored("`halt` or `freeze`")]
    name: Annotated[str, Stored("name of the freeze; of a halt: `halt`")]
    until: Annotated[str | None, Stored("when the freeze ends, in RFC 3339; of a halt: null")] = None
    reason: Annotated[str | None, Stored("why, in words for people")] = None


@dataclass(frozen=True, slots=True)
class SendingResumed(Event):
    """A halt or a freeze no longer stops the campaign. The actor lifted it; `engine`: the freeze has ended."""

    word: ClassVar = "sending_resumed"
    kind: Annotated[BrakeKind, Stored("`halt` or `freeze`")]
    name: Annotated[str, Stored("name of the freeze; of a halt: `halt`")]


@dataclass(frozen=True, slots=True)
class GuardrailTripped(Event):
    """A guardrail of a policy document tripped: too many devices of the campaign, of a wave or of segments failed."""

    word: ClassVar = "guardrail_tripped"
    of: Annotated[int, Stored("devices among which `failed` were counted: the finished ones, or those sent to first")]
    rule: Annotated[
        dict[str, object], Stored("the guardrail's keys, as its document has them; `threshold` as a number")
    ]
    value: Annotated[float, Stored("share of them that failed", "0 to 1")]
    action: Annotated[str, Stored("`abort`, `pause` or `quarantine`")]
    failed: Annotated[int, Stored("devices that failed")]
    devices: Annotated[list[str], Stored("some of the devices that failed, by id")]
    guardrail: Annotated[str, Stored("its name")]
    wave: Annotated[int | None, Stored("number of the wave that it judged, the first is 0")] = None
    alpha: Annotated[float | None, Stored("chance of a false alarm, of the method `sequential`", "0 to 1")] = None
    limit: Annotated[float | None, Stored("lower bound on the true share of failures, of that method", "0 to 1")] = None
    labels: Annotated[dict[str, object] | None, Stored("labels of the devices that it judged")] = None
    wave_name: Annotated[str | None, Stored("name of that wave")] = None


@dataclass(frozen=True, slots=True)
class SegmentQuarantined(Event):
    """A segment is under quarantine: its devices are not sent to until an operator releases it.

    A guardrail put it there, or an edit of the policy has moved devices into it that were under quarantine before.
    """

    word: ClassVar = "segment_quarantined"
    reason: Annotated[str, Stored("why, in words for people")]
    segment: Annotated[int, Stored("number of the segment")]
    guardrail: Annotated[str | None, Stored("name of the guardrail; none after an edit")] = None
    labels: Annotated[dict[str, object] | None, Stored("labels that the guardrail judged; none after an edit")] = None


@dataclass(frozen=True, slots=True)
class SegmentReleased(Event):
    """An operator released a segment from quarantine. The guardrail begins a new test for it."""

    word: ClassVar = "segment_released"
    segment: Annotated[int, Stored("number of the segment")]
    reason: Annotated[str | None, Stored("why, in that person's words")] = None
