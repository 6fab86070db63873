"""The keys of a policy document: what each means, which values it takes, and what it is by default.

The JSON Schema that is published and the reference page are generated from these classes. What one key demands of
another is checked here too, once each of them is valid by itself. Selectors, cron expressions and time zones are
checked by :mod:`rollwave.domain.policy.document.checks`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rollwave.domain.policy.document.fields import (
    MAX_COUNT,
    ONCE,
    Attempts,
    Code,
    Count,
    Devices,
    Duration,
    Label,
    Lax,
    Name,
    Rule,
    ShareText,
    Size,
    Version,
    broken_rule,
    named,
    require_unique,
)
from rollwave.domain.policy.document.schedule import MAX_WINDOWS, ScheduleRule, Window
from rollwave.domain.policy.document.units import Share
from rollwave.domain.policy.words import Method, OnFail, Scope, TripAction
from rollwave.domain.retry import Reason

__all__ = ["MAX_COUNT", "MAX_WINDOWS", "Rule", "ScheduleRule", "Window"]

MAX_WAVES, MAX_GUARDRAILS, MAX_BUDGETS, MAX_LABELS, MAX_CODES = 100, 16, 4, 3, 64
ORDER_PATTERN = r"^(hash|id|label:[A-Za-z_][A-Za-z0-9_.:-]*)$"


class GateRule(Rule):
    """What opens the next wave. Default: all devices of the wave are finished, no guardrail is over its threshold."""

    success_rate: ShareText | None = Field(None, description="Least share of its finished devices that succeeded.")
    min_finished: Devices | None = Field(
        None, description="Finished devices of the wave that are enough, or a share of it. Default: all of it."
    )
    soak: Duration | None = Field(None, description="Time for which the conditions must hold before the gate opens.")
    approval: bool = Field(False, description="A person with the role approver opens the gate.")
    on_fail: OnFail = Field(
        OnFail.PAUSE,
        strict=False,
        description="What happens when the wave is finished, and its `success_rate` does not hold or a guardrail that "
        "cannot act yet is over its threshold.",
    )


class WaveRule(Rule):
    """A part of the campaign's devices. The next wave is sent to when the gate of this one opens."""

    name: Name = Field("", description="Name of the wave. Default: `wave-1`, `wave-2` and so on.")
    size: Devices | None = Field(
        None, description="Devices of the wave, or a share of the targets. The last wave has no size: it is the rest."
    )
    select: str | None = Field(
        None, description="A selector: only devices that match it. Without a size, all of them are in the wave."
    )
    max_in_flight: Count | None = Field(
        None, description="Maximum number of devices of this wave in flight, until its gate opens."
    )
    gate: GateRule | None = Field(None, description="What opens the next wave. The last wave has no gate.")

    @model_validator(mode="after")
    def _can_finish(self) -> WaveRule:
        wanted = self.gate.min_finished if self.gate else None
        if isinstance(wanted, int) and isinstance(self.size, int) and wanted > self.size:
            raise broken_rule(f"more than the {self.size} devices of the wave", "gate", "min_finished")
        return self


class Ramp(Rule):
    """A pace that grows with success: min(per_minute, from * factor ** floor(succeeded / every_succeeded)) a minute."""

    from_: Count = Field(alias="from", description="Devices per minute in the beginning.")
    factor: float = Field(ge=1, le=1000, allow_inf_nan=False, description="From 1 to 1000: what multiplies the pace.")
    every_succeeded: Count = Field(description="Number of devices that succeed between two such steps.")


class BytesRule(Rule):
    """Limits on downloads. They use the size of the firmware, which must be known."""

    in_flight: Size | None = Field(None, description="Maximum number of bytes of all devices in flight.")
    per_second: Size | None = Field(None, description="Maximum number of bytes that begin per second.")

    @property
    def limits(self) -> bool:
        """Whether it sets any limit."""
        return self.in_flight is not None or self.per_second is not None


class PaceRule(Rule):
    """How fast devices are sent to for the first time. By default there is no limit, of which a dry run warns."""

    per_minute: Count | None = Field(None, description="Maximum number of devices per minute.")
    ramp: Ramp | None = Field(None, description="Begin slower, and get faster with each success. Needs `per_minute`.")
    max_in_flight: Count | None = Field(None, description="Maximum number of devices in flight, in the whole campaign.")
    bytes: BytesRule | None = Field(None, description="Limits on downloads.")
    start_jitter: Duration | None = Field(
        None, description="Devices begin at a random time within this duration, which is added to `deadlines.answer`."
    )

    @model_validator(mode="after")
    def _ramp_needs_a_top(self) -> PaceRule:
        if self.ramp is not None and self.per_minute is None:
            raise broken_rule("ramp needs per_minute, which it does not exceed", "ramp")
        return self


class Budget(Rule):
    """A disruption budget: a limit for the devices with the same value of a label. Devices without it have no limit."""

    name: Name = Field("", description="Name of the budget. Default: `budget-1` and so on.")
    per: Label = Field(description="Key of the label.")
    max_in_flight: Count = Field(description="Maximum number of devices in flight with the same value of the label.")


class GuardrailRule(Rule):
    """A limit on failures. A campaign that exceeds it is stopped."""

    name: Name = Field("", description="Name of the guardrail. Default: `guardrail-1` and so on.")
    count: Annotated[tuple[Annotated[Reason, Lax], ...], *ONCE] = Field(
        tuple(Reason), strict=False, min_length=1, description="Failure classes that count. Default: all."
    )
    codes: Annotated[tuple[Code, ...], Field(strict=False, min_length=1, max_length=MAX_CODES), *ONCE] | None = Field(
        None, description="Only failures with these codes count."
    )
    threshold: ShareText = Field(
        Share.percent(10), description="The guardrail trips when more than this share has failed. Default: 10 %."
    )
    method: Method = Field(Method.RATIO, strict=False, description="How failures are judged.")
    min_finished: Count | None = Field(
        None,
        description="Finished devices before it may trip; at the gate of a wave, one is enough for `ratio`. "
        "Default: 1 (ratio) or 5 (sequential).",
    )
    alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="For `sequential`: the chance of a false alarm over the test's whole life. Default: 0.01.",
    )
    scope: Scope = Field(Scope.CAMPAIGN, strict=False, description="The devices that are judged together.")
    per: Annotated[tuple[Label, ...], Field(strict=False, min_length=1, max_length=MAX_LABELS), *ONCE] | None = Field(
        None, description="For the scope `segment`: devices with the same values of these labels are a segment."
    )
    action: TripAction = Field(
        TripAction.ABORT,
        strict=False,
        description="What happens when it trips. `quarantine` (scope `segment` only): that segment waits.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> GuardrailRule:
        if self.method is Method.SEQUENTIAL and not 0 < self.threshold.fraction < 1:
            raise broken_rule("the method sequential needs a threshold over 0 and under 100 %", "threshold")
        if self.scope is Scope.SEGMENT and self.per is None:
            raise broken_rule("the scope segment needs per: the labels that make a segment", "scope")
        if self.action is TripAction.QUARANTINE and self.scope is not Scope.SEGMENT:
            raise broken_rule("the action quarantine needs the scope segment", "action")
        return self


class RetryRule(Rule):
    """Which failed attempts are followed by another one, and when."""

    on: Annotated[tuple[Annotated[Reason, Lax], ...], Lax, *ONCE] | None = Field(
        None,
        description="Failure classes that are retried; `[]`: none. `overdue` is final. Default: both silences.",
    )
    max_attempts: Attempts | None = Field(None, description="Maximum number of attempts. Default: `OTA_MAX_ATTEMPTS`.")
    delay: Duration | None = Field(
        None,
        description="Delay before the second attempt. It doubles. Default: a 30th of `deadlines.progress`.",
    )
    max_delay: Duration | None = Field(None, description="Maximum delay. Default: 1h.")

    @model_validator(mode="after")
    def _overdue_is_final(self) -> RetryRule:
        if self.on and Reason.OVERDUE in self.on:
            raise broken_rule(
                "overdue is final: leave it out, or give devices more time", "on", self.on.index(Reason.OVERDUE)
            )
        return self


class Deadlines(Rule):
    """How long a device may take. Time in which nothing may be sent does not count."""

    answer: Duration | None = Field(None, description="From the command to the first report. Default: `progress`.")
    progress: Duration | None = Field(None, description="From one report to the next. Default: `OTA_PROGRESS_TIMEOUT`.")
    total: Duration | None = Field(
        None, description="In all, attempts and delays included. Default: `ROLLWAVE_DEVICE_TIMEOUT`."
    )

    @model_validator(mode="after")
    def _over_zero(self) -> Deadlines:
        for key in ("answer", "progress", "total"):
            if getattr(self, key) == 0:
                raise broken_rule("must be over 0", key)
        return self


class PolicyDocument(Rule):
    """The rules of one campaign."""

    version: Version = Field(1, description="Version of this format.")
    order: str | None = Field(
        None,
        pattern=ORDER_PATTERN,
        max_length=134,
        description="Queue in a wave and segment: `hash`, `id`, `label:<key>`. Default: with waves `hash`, else `id`.",
    )
    waves: Annotated[tuple[WaveRule, ...], named("wave")] = Field(
        (),
        strict=False,
        max_length=MAX_WAVES,
        description="Parts of the devices, one after the other. Default: one.",
    )
    pace: PaceRule | None = Field(None, description="How fast devices are sent to. Default: no limit.")
    budgets: Annotated[tuple[Budget, ...], named("budget")] = Field(
        (), strict=False, max_length=MAX_BUDGETS, description="Limits for devices with the same value of a label."
    )
    guardrails: (
        Annotated[tuple[GuardrailRule, ...], Field(strict=False, max_length=MAX_GUARDRAILS), named("guardrail")] | None
    ) = Field(
        None,
        description="Limits on failures; `[]`: none. Default: abort when over 10 % of finished devices failed.",
    )
    retry: RetryRule | None = Field(None, description="Which failed attempts are repeated. Default: the settings'.")
    deadlines: Deadlines | None = Field(None, description="How long a device may take. Default: the settings'.")
    schedule: ScheduleRule | None = Field(None, description="When devices may be sent to at all. Default: always.")

    @model_validator(mode="after")
    def _agrees(self) -> PolicyDocument:
        for key in ("waves", "budgets", "guardrails"):
            require_unique(getattr(self, key) or (), key)
        for number, wave in enumerate(self.waves[:-1]):
            if wave.size is None and wave.select is None:
                raise broken_rule("needs size or select: only the last wave is the rest", "waves", number)
        last = len(self.waves) - 1
        if self.waves and self.waves[last].size is not None:
            raise broken_rule("the last wave has no size: it is the rest", "waves", last, "size")
        if self.waves and self.waves[last].gate is not None:
            raise broken_rule("the last wave has no gate: no wave follows it", "waves", last, "gate")
        return self
