"""The events of a campaign: one dataclass for each, and its JSON in history.

An event is a row of ``ota_campaign_history``: the column ``event`` has the name of its class, ``detail`` its fields.
Classes list the fields in the order of ``jsonb``: short names first. :func:`read` also reads events of other versions
of Rollwave: unknown fields are kept in ``more``, and an unknown event is an :class:`Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, ClassVar, Generic, TypeAlias, TypeVar

from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Column, Event, Stored, columns_of
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

ENGINE, DEVICE = "engine", "device"
"""Actors: the engine by itself, and a device by its report. Any other actor is the id of an API key."""


@dataclass(frozen=True, slots=True)
class Unknown(Event):
    """An event of another version. ``event`` is its name, and ``more`` has all of its fields."""

    event: str


@dataclass(frozen=True, slots=True)
class CampaignCreated(Event):
    """The campaign was created over the API."""

    word: ClassVar = "created"
    devices: Annotated[int, Stored("members of the group, of which the campaign's devices are taken")]


@dataclass(frozen=True, slots=True)
class CampaignTargeted(Event):
    """Every device of a large group is targeted: from now on the campaign can be started, or sends commands."""

    word: ClassVar = "targeted"
    devices: Annotated[int, Stored("devices of the campaign")]
    seconds: Annotated[float, Stored("from the campaign's creation until then", "seconds")]


_To: TypeAlias = Annotated[CampaignStatus, Stored("status after")]


@dataclass(frozen=True, slots=True)
class CampaignMoved(Event):
    """The campaign changed its status."""

    was: Annotated[CampaignStatus, Stored("status before", key="from")]
    reason: Annotated[str | None, Stored("why, in words for people")] = None
    to: _To = field(default=CampaignStatus.CREATED, kw_only=True)


@dataclass(frozen=True, slots=True)
class CampaignRunning(CampaignMoved):
    """The campaign was started, or resumed after a pause."""

    word: ClassVar = "running"
    to: _To = field(default=CampaignStatus.RUNNING, kw_only=True)


@dataclass(frozen=True, slots=True)
class CampaignPaused(CampaignMoved):
    """An operator paused the campaign, or the engine did: a guardrail, a gate, or a rule that cannot be read."""

    word: ClassVar = "paused"
    to: _To = field(default=CampaignStatus.PAUSED, kw_only=True)


@dataclass(frozen=True, slots=True)
class CampaignAborted(CampaignMoved):
    """An operator aborted the campaign, or its guardrail did."""

    word: ClassVar = "aborted"
    to: _To = field(default=CampaignStatus.ABORTED, kw_only=True)


@dataclass(frozen=True, slots=True)
class CampaignCancelled(Event):
    """The campaign was cancelled: it is aborted, and its devices in progress are told to stop."""

    word: ClassVar = "cancelled"
    devices: Annotated[int, Stored("devices that were in flight")]
    reason: Annotated[str | None, Stored("why, in words for people")] = None


@dataclass(frozen=True, slots=True)
class CampaignCompleted(CampaignMoved):
    """Every device of the campaign is in a terminal state."""

    word: ClassVar = "completed"
    to: _To = field(default=CampaignStatus.COMPLETED, kw_only=True)


@dataclass(frozen=True, slots=True)
class DevicesRetried(Event):
    """An operator gave failed devices another attempt. For very many devices there is one event for each batch."""

    word: ClassVar = "devices_retried"
    devices: Annotated[int, Stored("devices that get another attempt")]
    cause: Annotated[Reason | None, Stored("only devices whose last attempt failed for this reason")] = None
    code: Annotated[str | None, Stored("only devices whose last attempt failed with this code")] = None


@dataclass(frozen=True, slots=True)
class WaveOpened(Event):
    """The devices of the next wave may be sent to."""

    word: ClassVar = "wave_opened"
    wave: Annotated[int, Stored("number of that wave, the first is 0")]
    succeeded: Annotated[int, Stored("devices of the campaign that had succeeded")]
    failed: Annotated[int, Stored("devices of the campaign that had failed")]
    name: Annotated[str | None, Stored("name of that wave; none without a policy document")] = None
    passed: Annotated[str | None, Stored("name of the wave before it, which has passed")] = None


@dataclass(frozen=True, slots=True)
class CountersRepaired(Event):
    """The campaign's counters differed from its rows, because other SQL changed one of them."""

    word: ClassVar = "counters_repaired"
    failed: Annotated[int, Stored("devices that have failed, by the rows")]
    succeeded: Annotated[int, Stored("devices that have succeeded, by the rows")]


@dataclass(frozen=True, slots=True)
class CampaignAdopted(Event):
    """A campaign that a host had begun was counted for the first time."""

    word: ClassVar = "adopted"
    failed: Annotated[int, Stored("devices that have failed")]
    skipped: Annotated[int, Stored("devices that are `SKIPPED`")]
    waiting: Annotated[int, Stored("devices that are `PENDING`")]
    succeeded: Annotated[int, Stored("devices that have succeeded")]
    in_progress: Annotated[int, Stored("devices that are `DOWNLOADING` or `INSTALLING`")]


@dataclass(frozen=True, slots=True)
class FinishedRestored(Event):
    """Devices had finished before a host's worker marked them as in progress: they are finished again."""

    word: ClassVar = "finished_restored"
    failed: Annotated[int, Stored("how many of them had failed")]
    succeeded: Annotated[int, Stored("how many of them had succeeded")]


@dataclass(frozen=True, slots=True)
class DeviceFailure(Event):
    """One attempt of one device."""

    device_id: str = field(kw_only=True)
    attempt: Annotated[int, Stored("number of the attempt, the first is 1")]
    message: Annotated[str, Stored("what the device reported, or what the engine waited for", key="reason")]
    # An early version wrote neither of these.
    cause: Annotated[Reason | None, Stored(f"kind of failure: {', '.join(f'`{each}`' for each in Reason)}")] = None
    final: Annotated[bool | None, Stored("no other attempt follows: the device is `FAILED`")] = None
    code: Annotated[str | None, Stored("the device's code for the failure, such as `E_BOOT`")] = None


@dataclass(frozen=True, slots=True)
class AttemptFailed(DeviceFailure):
    """An attempt to update a device failed."""

    word: ClassVar = "attempt_failed"


@dataclass(frozen=True, slots=True)
class GivenUp(DeviceFailure):
    """The attempt that was to follow a failed one is not made."""

    word: ClassVar = "given_up"


@dataclass(frozen=True, slots=True)
class DeviceRetried(Event):
    """An operator gave a failed device another attempt: it is no longer `FAILED`."""

    word: ClassVar = "retried"
    device_id: str = field(kw_only=True)
    attempt: Annotated[int, Stored("number of the attempt that had failed")]


EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        each.word: each
        for each in (
            *(
                CampaignCreated,
                CampaignTargeted,
                CampaignRunning,
                CampaignPaused,
                CampaignAborted,
                CampaignCancelled,
                CampaignCompleted,
                DevicesRetried,
                PolicyEdited,
                WaveOpened,
                WaveChanged,
                WavePromoted,
                CampaignPlaced,
                SendingStopped,
                SendingResumed,
                GuardrailTripped,
                SegmentQuarantined,
                SegmentReleased,
            ),
            *(CountersRepaired, CampaignAdopted, FinishedRestored, AttemptFailed, GivenUp, DeviceRetried),
        )
    }
)
"""Every class of events, by its value in the column ``event``."""

MOVES: Mapping[CampaignStatus, type[CampaignMoved]] = MappingProxyType(
    {
        CampaignStatus(each.word.upper()): each
        for each in (CampaignRunning, CampaignPaused, CampaignAborted, CampaignCompleted)
    }
)
"""The event that is written when a campaign changes to a status."""

Kind_co = TypeVar("Kind_co", bound=Event, covariant=True)


@dataclass(frozen=True, slots=True)
class Entry(Generic[Kind_co]):
    """An event to write, with its campaign and its actor (``ENGINE``, ``DEVICE`` or the id of an API key)."""

    campaign_id: int
    event: Kind_co
    actor: str


def read(word: str, detail: object, device_id: str | None = None) -> Event:
    """Read an event from its name and its stored fields. An event that cannot be read is an :class:`Unknown`."""
    if not isinstance(detail, Mapping):  # written by hand
        return Unknown(word, device_id=device_id, more={"detail": detail})
    try:
        return EVENTS[word].from_detail(detail, device_id)
    except (KeyError, ValueError):
        return Unknown(word, device_id=device_id, more=detail)


COLUMNS: Mapping[type[Event], tuple[Column, ...]] = MappingProxyType(
    {each: columns_of(each) for each in (*EVENTS.values(), Unknown)}
)
"""The fields of each event class in ``detail``, in their order."""
