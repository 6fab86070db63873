"""The devices of a campaign in responses: their states, what happened to them, and why they wait."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.words import GateName


class Execution(BaseModel):
    """One device in one campaign."""

    device_id: str
    status: ExecutionStatus
    progress_pct: int | None
    error_message: str | None
    error_code: str | None = Field(description="Code of the last failed attempt, as the device reported it")
    attempt: int = Field(description="Number of the current attempt; 0: never sent to")
    due_at: Moment | None = Field(description="Deadline: after it, the command is sent again, or the device is FAILED")
    started_at: Moment | None
    completed_at: Moment | None
    created_at: Moment | None


class ExecutionList(BaseModel):
    """One page of a campaign's devices, ordered by device id."""

    campaign_id: int
    devices: list[Execution]
    total: int | None = Field(
        description="Over all pages, for the same filter, counted up to 100,000 unless the filter is `status` alone; "
        "null: not counted"
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")


class Event(BaseModel):
    """Something that happened to a campaign, or to one of its devices."""

    id: int
    at: Moment
    event: str
    actor: str = Field(description="`engine`, `device`, or the id of an API key")
    actor_name: str | None = Field(description="Name of that key; null: it has none")
    device_id: str | None = Field(description="null: the event is about the campaign as a whole")
    detail: dict[str, Any]
    text: str = Field(
        description="The event as a sentence. It has texts of devices and operators as they wrote them, so escape it"
    )


class EventList(BaseModel):
    """Events, oldest first. To watch, ask again with `after` set to `next_after`."""

    campaign_id: int
    events: list[Event]
    next_after: int


class Check(BaseModel):
    """The answer of one gate for a device."""

    gate: GateName = Field(description="docs/reference/gates.md explains each gate")
    open: bool
    until: Moment | None = Field(description="When the gate opens; null: unknown, or it is open")
    text: str = Field(description="The answer as a sentence")
    detail: dict[str, Any] = Field(description="The numbers that it is based on")


class WaitingFor(BaseModel):
    """Devices that wait for the same gate."""

    reason: GateName = Field(description="The first gate closed to them; `pace` for devices that may be sent to now")
    devices: int
    until: Moment | None = Field(description="When the gate opens for the first of them; null: unknown")
    detail: dict[str, Any]
    text: str


class Waiting(BaseModel):
    """The gates that PENDING devices of a campaign wait for. Each device counts once, so the sum is `pending`."""

    campaign_id: int
    as_of: Moment
    pending: int
    waiting: list[WaitingFor]


class Explanation(BaseModel):
    """Whether a device may be sent to now, and if not, why."""

    campaign_id: int
    device_id: str
    status: ExecutionStatus
    attempt: int = Field(description="Number of the current attempt; 0: never sent to")
    wave: str | None = Field(description="Name of its wave; null: not known yet, or no longer stored")
    may_go_now: bool = Field(description="Whether every gate is open")
    may_go_at: Moment | None = Field(description="When the last closed gate opens, at the earliest; null: unknown")
    checks: list[Check] = Field(description="Every gate that applies, in the order in which they are checked")
    history: list[Event] = Field(description="The device's events, oldest first")
