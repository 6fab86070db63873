"""The keys of a policy document: what each means, which values it takes, and what it is by default.

The JSON Schema that is published and the reference page are generated from these classes. What one key demands of
another is checked here too, once each of them is valid by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from rollwave.domain.policy.document import units
from rollwave.domain.policy.document.units import Share
from rollwave.domain.retry import MAX_ATTEMPTS, Reason

MAX_WAVES, MAX_WINDOWS, MAX_GUARDRAILS, MAX_BUDGETS, MAX_LABELS, MAX_CODES = 100, 32, 16, 4, 3, 64
MAX_COUNT = 2**31 - 1
LONGEST_WINDOW_SECONDS = 7 * 86_400.0
DEVICE_ZONE = "device"
"""The time zone that stands for each device's own."""
KEY_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.:-]*$"

T = TypeVar("T")


def _text_as(read: Callable[[object], T], pattern: str, example: str) -> tuple[Any, Any]:
    def checked(value: object) -> T:
        if isinstance(value, str):
            try:
                return read(value)
            except ValueError as error:
                raise PydanticCustomError("policy", "{text}", {"text": str(error)}) from error
        raise PydanticCustomError("policy", "{text}", {"text": f"must be text such as {example!r}"})

    return BeforeValidator(checked), WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Duration: TypeAlias = Annotated[float, *_text_as(units.read_duration, units.DURATION_PATTERN, "30m")]
"""Seconds."""
ShareText: TypeAlias = Annotated[Share, *_text_as(units.read_share, units.SHARE_PATTERN, "5%")]
Size: TypeAlias = Annotated[int, *_text_as(units.read_size, units.SIZE_PATTERN, "50MiB")]
"""Bytes."""


def _time(value: object) -> datetime:
    try:
        return units.read_time(value)
    except ValueError as error:
        raise PydanticCustomError("policy", "{text}", {"text": str(error)}) from error


Time: TypeAlias = Annotated[
    datetime,
    BeforeValidator(_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2027-01-11T08:00:00Z"]}),
]


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise PydanticCustomError("policy", "{text}", {"text": "must be a whole number of 1 or more"})
    return value


Count: TypeAlias = Annotated[int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 1})]


def _devices_or_share(value: object) -> int | Share:
    if isinstance(value, str):
        try:
            return units.read_share(value)
        except ValueError as error:
            raise PydanticCustomError("policy", "{text}", {"text": str(error)}) from error
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        text = 'must be a number of devices such as 50, or a share such as "5%"'
        raise PydanticCustomError("policy", "{text}", {"text": text})
    return value


Devices: TypeAlias = Annotated[
    int | Share,
    BeforeValidator(_devices_or_share),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": units.SHARE_PATTERN, "examples": ["5%"]},
            ]
        }
    ),
]
"""A number of devices, or a share of them."""

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Label: TypeAlias = Annotated[str, Field(max_length=128, pattern=KEY_PATTERN)]


class Rule(BaseModel):
    """A mapping of the document. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class OnFail(StrEnum):
    """What the gate of a wave does that was not passed."""

    PAUSE = "pause"
    ABORT = "abort"


class GateRule(Rule):
    """What opens the next wave: by default, that the wave is finished and no guardrail is over its threshold."""

    success_rate: ShareText | None = Field(None, description="This share of the wave's finished devices succeeded.")
    min_finished: Devices | None = Field(None, description="So many have finished, or such a share of the wave: all.")
    soak: Duration | None = Field(None, description="How long the rest must hold before the gate opens.")
    approval: bool = Field(False, description="A person with the role approver opens it.")
    on_fail: OnFail = Field(OnFail.PAUSE, strict=False, description="What happens when the wave is finished and fails.")


class WaveRule(Rule):
    """A part of the campaign's devices that is sent to before the next one."""

    name: Name = Field(description="How people call it.")
    size: Devices | None = Field(None, description="Devices, or a share of the targets. Of the last wave: the rest.")
    select: str | None = Field(None, max_length=4096, description="A selector: only devices that match.")
    max_in_flight: Count | None = Field(None, description="Devices of this wave in flight at a time.")
    gate: GateRule | None = Field(None, description="What opens the next wave.")


class Ramp(Rule):
    """A pace that grows with success: min(per_minute, from * factor ** floor(succeeded / every_succeeded)) a minute."""

    from_: Count = Field(alias="from", description="Devices a minute at first.")
    factor: float = Field(ge=1, le=1000, strict=False, allow_inf_nan=False, description="By how much it grows.")
    every_succeeded: Count = Field(description="It grows each time that so many more have succeeded.")


class BytesRule(Rule):
    """Bounds on downloads, by the size of the firmware."""

    in_flight: Size | None = Field(None, description="Bytes of all devices in flight.")
    per_second: Size | None = Field(None, description="Bytes that begin to be downloaded in a second.")


class PaceRule(Rule):
    """How fast devices are sent to for the first time; by default as fast as it goes."""

    per_minute: Count | None = Field(None, description="Devices a minute.")
    ramp: Ramp | None = None
    max_in_flight: Count | None = Field(None, description="Devices in flight at a time, in the whole campaign.")
    bytes: BytesRule | None = None
    start_jitter: Duration | None = Field(None, description="Devices begin at a random time within this long.")

    @model_validator(mode="after")
    def _ramp_needs_a_top(self) -> PaceRule:
        if self.ramp is not None and self.per_minute is None:
            raise _problem("ramp needs per_minute, which it does not exceed")
        return self


class Budget(Rule):
    """At most so many devices in flight with the same value of a label. Devices without the label are not limited."""

    name: Name
    per: Label = Field(description="The key of the label.")
    max_in_flight: Count


class Method(StrEnum):
    """How failures are judged."""

    RATIO = "ratio"
    SEQUENTIAL = "sequential"


class Scope(StrEnum):
    """What a guardrail judges."""

    CAMPAIGN = "campaign"
    WAVE = "wave"
    SEGMENT = "segment"


class TripAction(StrEnum):
    """What happens when a guardrail trips."""

    ABORT = "abort"
    PAUSE = "pause"
    QUARANTINE = "quarantine"


class GuardrailRule(Rule):
    """A limit on failures, over which the campaign stops itself."""

    name: Name
    count: tuple[Annotated[Reason, Field(strict=False)], ...] = Field(
        tuple(Reason), strict=False, min_length=1, description="Failure classes that count."
    )
    codes: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,64}$")], ...] | None = Field(
        None, strict=False, min_length=1, max_length=MAX_CODES, description="Only failures with these codes count."
    )
    threshold: ShareText = Field(description="It trips when the share of failures is over this.")
    method: Method = Field(Method.RATIO, strict=False)
    min_finished: Count | None = Field(None, description="Finished devices before it may trip: 1, or 5 (sequential).")
    alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        strict=False,
        allow_inf_nan=False,
        description="Sequential only: the chance of a false alarm over the test's whole life. 0.01.",
    )
    scope: Scope = Field(Scope.CAMPAIGN, strict=False)
    per: tuple[Label, ...] | None = Field(
        None, strict=False, min_length=1, max_length=MAX_LABELS, description="Scope segment: labels that make one."
    )
    action: TripAction = Field(TripAction.ABORT, strict=False)

    @model_validator(mode="after")
    def _agrees(self) -> GuardrailRule:
        if self.method is Method.SEQUENTIAL and not 0 < self.threshold.fraction < 1:
            raise _problem("the method sequential needs a threshold over 0 and under 100 %")
        if self.scope is Scope.SEGMENT and self.per is None:
            raise _problem("the scope segment needs per: the labels that make a segment")
        if self.action is TripAction.QUARANTINE and self.scope is not Scope.SEGMENT:
            raise _problem("the action quarantine needs the scope segment")
        return self


class RetryRule(Rule):
    """Which failed attempts are followed by another, and when."""

    on: tuple[Annotated[Reason, Field(strict=False)], ...] | None = Field(None, strict=False)
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    delay: Duration | None = None
    max_delay: Duration | None = None

    @model_validator(mode="after")
    def _overdue_is_final(self) -> RetryRule:
        if self.on and Reason.OVERDUE in self.on:
            raise _problem("overdue is final: leave it out, or give devices more time")
        return self


class Deadlines(Rule):
    """How long a device may take."""

    answer: Duration | None = Field(None, description="From the command to the first report.")
    progress: Duration | None = Field(None, description="From one report to the next.")
    total: Duration | None = Field(None, description="In all, attempts and delays included.")


class AtEnd(StrEnum):
    """What happens at the end of the schedule."""

    STOP = "stop"
    CANCEL = "cancel"


class WindowKind(StrEnum):
    """Whether sending is allowed or denied inside a window."""

    ALLOW = "allow"
    DENY = "deny"


class Window(Rule):
    """Times in which devices are sent to, or are not: cron with duration, or start with end."""

    name: Name
    kind: WindowKind = Field(strict=False)
    cron: str | None = Field(None, max_length=200, description="When it opens: five fields, as cron has them.")
    duration: Duration | None = Field(None, description="How long it stays open, in elapsed time.")
    cutoff: Duration | None = Field(None, description="Allow only: how long before the end nothing new starts.")
    start: Time | None = None
    end: Time | None = None
    time_zone: str | None = Field(None, max_length=64, description="An IANA name, UTC, or device.")

    @model_validator(mode="after")
    def _agrees(self) -> Window:
        given = {key for key in ("cron", "duration", "start", "end") if getattr(self, key) is not None}
        if given not in ({"cron", "duration"}, {"start", "end"}):
            raise _problem("a window has either cron with duration, or start with end")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise _problem("start must be before end")
        if self.duration is not None and not 0 < self.duration <= LONGEST_WINDOW_SECONDS:
            raise _problem("duration must be over 0 and at most 7d")
        if self.cutoff is not None:
            if self.kind is WindowKind.DENY:
                raise _problem("cutoff belongs to windows of the kind allow")
            length = self.duration if self.duration is not None else _seconds_between(self.start, self.end)
            if self.cutoff >= length:
                raise _problem("cutoff must be shorter than the window")
        return self


def _seconds_between(start: datetime | None, end: datetime | None) -> float:
    return (end - start).total_seconds() if start is not None and end is not None else 0.0


class ScheduleRule(Rule):
    """When devices may be sent to at all."""

    time_zone: str = Field("UTC", max_length=64, description="For windows and devices without one.")
    start: Time | None = None
    end: Time | None = None
    at_end: AtEnd = Field(AtEnd.STOP, strict=False)
    windows: tuple[Window, ...] = Field((), strict=False, max_length=MAX_WINDOWS)
    ignore_freezes: bool = Field(False, description="An emergency; starting it takes an approver.")

    @model_validator(mode="after")
    def _agrees(self) -> ScheduleRule:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise _problem("start must be before end")
        _unique(self.windows, "windows")
        return self


class PolicyDocument(Rule):
    """The rules of one campaign. Every key but those of a list's items is optional."""

    version: Literal[1] = Field(1, description="The version of this format.")
    order: str | None = Field(
        None,
        pattern=r"^(hash|id|label:[A-Za-z_][A-Za-z0-9_.:-]*)$",
        max_length=134,
        description="The queue within a wave and segment: hash, id or label:<key>. Default: hash with waves, else id.",
    )
    waves: tuple[WaveRule, ...] = Field((), strict=False, max_length=MAX_WAVES)
    pace: PaceRule | None = None
    budgets: tuple[Budget, ...] = Field((), strict=False, max_length=MAX_BUDGETS)
    guardrails: tuple[GuardrailRule, ...] | None = Field(None, strict=False, max_length=MAX_GUARDRAILS)
    retry: RetryRule | None = None
    deadlines: Deadlines | None = None
    schedule: ScheduleRule | None = None

    @model_validator(mode="after")
    def _agrees(self) -> PolicyDocument:
        for key in ("waves", "budgets", "guardrails"):
            _unique(getattr(self, key) or (), key)
        for wave in self.waves[:-1]:
            if wave.size is None and wave.select is None:
                raise _problem(f"the wave {wave.name} needs size or select: only the last wave is the rest")
        if self.waves and self.waves[-1].size is not None:
            raise _problem(f"the last wave, {self.waves[-1].name}, has no size: it is the rest")
        if self.waves and self.waves[-1].gate is not None:
            raise _problem(f"the last wave, {self.waves[-1].name}, has no gate: no wave follows it")
        return self


def _unique(items: Iterable[Any], key: str) -> None:
    twice = [name for name, number in Counter(each.name for each in items).items() if number > 1]
    if twice:
        raise _problem(f"{key}: the name {twice[0]} is given twice")


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("policy", "{text}", {"text": text})
