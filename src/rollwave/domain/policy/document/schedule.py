"""The keys of a document's schedule: start, end, and windows."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, model_validator

from rollwave.domain.policy.document.fields import (
    Duration,
    Name,
    Rule,
    Time,
    Zone,
    broken_rule,
    named,
    require_unique,
)
from rollwave.domain.policy.words import DEVICE_ZONE, AtEnd, WindowKind

MAX_WINDOWS = 32
LONGEST_WINDOW_SECONDS = 7 * 86_400.0


class Window(Rule):
    """Times in which devices are sent to, or are not: `cron` with `duration`, or `start` with `end`."""

    name: Name = Field("", description="Name of the window. Default: `window-1` and so on.")
    kind: WindowKind = Field(
        strict=False,
        description="`allow` or `deny`. A `deny` window wins. Without an `allow` window, all other time is allowed.",
    )
    cron: str | None = Field(None, max_length=200, description="When it opens: five fields, as cron has them.")
    duration: Duration | None = Field(None, description="How long it stays open, in elapsed time: at most 7d.")
    cutoff: Duration | None = Field(
        None, description="`allow` only: nothing new starts in this time before the end. Shorter than the window."
    )
    start: Time | None = Field(None, description="When it opens, once.")
    end: Time | None = Field(None, description="When it closes.")
    time_zone: Zone | None = Field(
        None,
        description="Zone of `cron`: an IANA name, `UTC`, or `device` (each device's own). Default: the schedule's.",
    )

    @property
    def differs_by_device(self) -> bool:
        """Whether it opens at another moment for devices of another time zone."""
        return self.cron is not None and self.time_zone == DEVICE_ZONE

    @model_validator(mode="after")
    def _agrees(self) -> Window:
        given = {key for key in ("cron", "duration", "start", "end") if getattr(self, key) is not None}
        if given not in ({"cron", "duration"}, {"start", "end"}):
            raise broken_rule("a window has either cron with duration, or start with end")
        _require_order(self.start, self.end)
        if self.duration is not None and not 0 < self.duration <= LONGEST_WINDOW_SECONDS:
            raise broken_rule("must be over 0 and at most 7d", "duration")
        if self.cutoff is not None:
            if self.kind is WindowKind.DENY:
                raise broken_rule("belongs to windows of the kind allow", "cutoff")
            if self.cutoff >= self._length():
                raise broken_rule("must be shorter than the window", "cutoff")
        return self

    def _length(self) -> float:
        if self.start is not None and self.end is not None:
            return (self.end - self.start).total_seconds()
        return self.duration or 0.0


def _require_order(start: datetime | None, end: datetime | None) -> None:
    if start is not None and end is not None and start >= end:
        raise broken_rule("must be after start", "end")


class ScheduleRule(Rule):
    """When devices may be sent to at all."""

    time_zone: Zone = Field(
        "UTC", description="Time zone of windows that name none, and of devices without one: an IANA name or `UTC`."
    )
    start: Time | None = Field(None, description="Nothing is sent before this time.")
    end: Time | None = Field(None, description="The campaign ends at this time, and devices not sent to are skipped.")
    at_end: AtEnd = Field(AtEnd.STOP, strict=False, description="`cancel`: devices in progress are told to stop, too.")
    windows: Annotated[tuple[Window, ...], named("window")] = Field(
        (), strict=False, max_length=MAX_WINDOWS, description="Times of the day, the week or the year."
    )
    ignore_freezes: bool = Field(
        False, description="An emergency: freezes do not stop the campaign. To start it takes an approver."
    )

    @model_validator(mode="after")
    def _agrees(self) -> ScheduleRule:
        _require_order(self.start, self.end)
        require_unique(self.windows, "windows")
        return self
