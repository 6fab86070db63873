"""The words of rollout policies that documents, tables, answers of the API and the command line share.

They stand apart from the rules, so that a command that only shows them starts without reading the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

DEVICE_ZONE = "device"
"""Time zone of a window: each device has its own."""


class Strategy(StrEnum):
    """The values of ``ota_campaigns.rollout_strategy``."""

    LINEAR = "linear"
    CANARY = "canary"


class WaveState(StrEnum):
    """The state of a wave, as the API shows it."""

    WAITING = "waiting"
    """A wave before it is not passed."""
    OPEN = "open"
    """Its devices may be sent to."""
    SOAKING = "soaking"
    """Its gate's conditions hold, and have to hold for the soak time."""
    AWAITING_APPROVAL = "awaiting_approval"
    """Everything else holds: a person opens the gate."""
    PASSED = "passed"
    """Its gate is open. The last wave: it is finished."""
    FAILED = "failed"
    """It is finished, and too few of its devices succeeded, or a guardrail is over its threshold."""


class GateName(StrEnum):
    """The gates, in the order in which they are checked."""

    STATUS = "status"
    """The campaign is not running: created, paused, ended, or about to be paused because its rules cannot be read. For
    one device: it has ended, or it has its command and is in progress."""
    TARGETING = "targeting"
    """The campaign's devices are still being targeted or counted."""
    LISTENER = "listener"
    """No listener is subscribed, so reports of devices would not be received."""
    HALTED = "halted"
    """An operator has halted all sending of the tenant."""
    FREEZE = "freeze"
    """A freeze of the tenant is in force, and the policy does not ignore freezes."""
    SCHEDULE = "schedule"
    """The policy's schedule has not started yet, or has ended."""
    WINDOW = "window"
    """The policy's time windows do not allow sending now, in the time zone of the device."""
    WAVE = "wave"
    """All devices of the wave have been sent to, and not all have ended. Under a policy document: the wave of the
    device is not open yet, since the gate of an earlier one is closed. Applies to first commands only."""
    APPROVAL = "approval"
    """The present wave has all that its gate asks for but the approval of a person. Applies to first commands only."""
    QUARANTINE = "quarantine"
    """A guardrail has put the segment of the device under quarantine, until an operator releases it."""
    BUDGET = "budget"
    """As many devices as a budget allows are in flight with the device's value of a label. Applies to first commands
    only."""
    IN_FLIGHT = "in_flight"
    """The maximum number of devices of the campaign, or of the wave, is in flight. Applies to first commands only."""
    BYTES = "bytes"
    """The bytes of the downloads in flight, or of those begun per second, reach their limit. Applies to first commands
    only."""
    PACE = "pace"
    """The interval, or this step of it, has no tokens left. Under a policy document: the share of ``per_minute`` for
    this step is used up, and it applies to first commands only."""
    BACKOFF = "backoff"
    """The device's last attempt has failed, and the delay before the next one has not ended."""
    LEASE = "lease"
    """A worker is sending to the device now, or the broker did not answer and the command waits for the next try."""
    REFUSED = "refused"
    """The broker refuses the device's command while it accepts others, for example by ending the connection."""


class OnFail(StrEnum):
    """What happens when a wave is finished, and too few devices succeeded or a guardrail is over its threshold."""

    PAUSE = "pause"
    ABORT = "abort"


class Scope(StrEnum):
    """The devices that a guardrail judges together."""

    CAMPAIGN = "campaign"
    WAVE = "wave"
    SEGMENT = "segment"


class Method(StrEnum):
    """How a guardrail judges failures."""

    RATIO = "ratio"
    SEQUENTIAL = "sequential"


class TripAction(StrEnum):
    """What happens when a guardrail trips."""

    ABORT = "abort"
    PAUSE = "pause"
    QUARANTINE = "quarantine"


class WindowKind(StrEnum):
    """Whether devices may or may not be sent to inside a window."""

    ALLOW = "allow"
    DENY = "deny"


class AtEnd(StrEnum):
    """What happens at the end of the schedule."""

    STOP = "stop"
    CANCEL = "cancel"


def group_text(labels: Mapping[str, object] | None) -> str:
    """The labels of a group of devices, for people. Empty: it has none."""
    return ", ".join(
        f"no {key}" if value is None else f"{key}={value}" for key, value in sorted((labels or {}).items())
    )
