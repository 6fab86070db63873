"""Campaigns in requests and answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rollwave.api.fields import MAX_JSON_INTEGER, WHOLE, Finite, LongText, Moment, Text
from rollwave.api.schemas import RequestModel
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.gates import GateName
from rollwave.domain.retry import MAX_ATTEMPTS, Reason

MAX_RATE = 1_000_000
MAX_DEVICES = 2**31 - 1
MAX_PROGRESS_TIMEOUT = 31_536_000.0

RetriedReason = Literal[Reason.NO_ANSWER, Reason.NO_PROGRESS, Reason.REPORTED, Reason.REJECTED]
"""What may be tried again: running out of time may not."""


class CampaignIn(RequestModel):
    """A campaign to create."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "2.1.0 for the north site",
                    "firmware_version_id": 1,
                    "target_group_id": "site-north",
                    "rollout_strategy": "canary",
                    "rollout_rate": 100,
                    "abort_threshold": 0.05,
                }
            ]
        }
    )

    name: Text
    firmware_version_id: Annotated[int, Field(ge=1, le=MAX_JSON_INTEGER), WHOLE]
    target_group_id: Text = Field(
        description="Its members are the campaign's devices; who joins or leaves during targeting may or may not be"
    )
    rollout_strategy: Literal["linear", "canary"] = Field(
        "linear", description="`canary` updates a first share of the devices, and the rest when they have succeeded"
    )
    rollout_rate: Annotated[int, Field(ge=1, le=MAX_RATE), WHOLE] = Field(
        10, description="Maximum number of devices per tick (10 s by default)"
    )
    abort_threshold: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="The campaign is aborted when a larger share of its finished devices has failed",
    )
    abort_min_completed: Annotated[int, Field(ge=1, le=MAX_DEVICES), WHOLE] = Field(
        1, description="Minimum number of finished devices before it may be aborted by that rule"
    )
    canary_percent: float = Field(
        5.0, gt=0, le=100, allow_inf_nan=False, description="Size of the first wave, in percent of the devices"
    )
    max_in_flight: Annotated[int, Field(ge=1, le=MAX_DEVICES), WHOLE] | None = Field(
        None, description="Maximum number of devices in flight; null: no maximum"
    )
    progress_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None,
        description="Maximum silence of a device in progress, in seconds; null: the server's setting",
    )
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS), WHOLE] | None = Field(
        None, description="Maximum number of attempts per device; null: the server's setting"
    )
    answer_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum time to a device's first report, in seconds; null: as progress_timeout"
    )
    device_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum time for a device over all attempts, in seconds; null: the server's setting"
    )
    retry_on: Annotated[list[RetriedReason], Field(max_length=4)] | None = Field(
        None,
        description="Failures after which another attempt follows; null: `no_answer` and `no_progress`",
        examples=[["no_answer", "no_progress", "reported"]],
    )
    retry_delay: Annotated[float, Field(ge=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None,
        description="Pause before the second attempt, in seconds; it doubles each time; null: progress_timeout / 30",
    )
    retry_delay_max: Annotated[float, Field(ge=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum of that pause, in seconds; null: an hour"
    )


class Abort(RequestModel):
    """Why a campaign is aborted."""

    reason: LongText | None = Field(None, examples=["battery drain seen in the lab"])


class Campaign(BaseModel):
    """A campaign and its firmware."""

    id: int
    tenant_id: str
    name: str | None
    status: CampaignStatus
    status_reason: str | None = Field(description="Why it was paused or aborted")
    firmware_version_id: int | None
    firmware_version: str | None
    firmware_url: str | None
    firmware_checksum: str | None
    firmware_device_type: str | None
    target_group_id: str | None
    rollout_strategy: str | None
    rollout_rate: int | None
    abort_threshold: Finite
    abort_min_completed: int | None
    canary_percent: Finite
    max_in_flight: int | None
    progress_timeout: Finite
    answer_timeout: Finite
    device_timeout: Finite
    max_attempts: int | None
    retry_on: list[str] | None
    retry_delay: Finite
    retry_delay_max: Finite
    total_devices: int | None = Field(description="Devices of the campaign; while it is targeted, members of its group")
    targeted_devices: int | None = Field(
        description="How many of them are targeted so far, of a large group; nothing is sent before all are. "
        "null: they are. Of a campaign that was aborted before, what it had come to"
    )
    sent: int = Field(description="Devices sent to at least once")
    succeeded: int | None
    failed: int | None
    wave: int = Field(description="Number of the wave that may be sent to now")
    started_at: Moment | None
    completed_at: Moment | None
    created_at: Moment | None
    created_by: str | None = Field(description="Id of the API key that created it")


class Wave(BaseModel):
    """A share of the devices; its gate opens the next one."""

    number: int
    up_to: int | None = Field(description="Total number of devices that may be sent to up to this wave; null: all")
    opened_at: Moment | None
    passed_at: Moment | None


class CampaignDetail(Campaign):
    """A campaign with its progress, all of one moment."""

    status_breakdown: dict[ExecutionStatus, int] = Field(
        description="Devices by status; every status is present",
        examples=[{"PENDING": 90, "DOWNLOADING": 4, "INSTALLING": 1, "SUCCESS": 5, "FAILED": 0, "SKIPPED": 0}],
    )
    waves: list[Wave] = Field(description="Empty until the campaign is first started")


class CampaignList(BaseModel):
    """One page of campaigns, newest first."""

    campaigns: list[Campaign]
    total: int = Field(description="Over all pages, for the same filter")
    next_cursor: int | None = Field(description="`cursor` of the next page; null: this is the last one")


class CampaignState(BaseModel):
    """The state that a campaign is in now."""

    id: int
    status: CampaignStatus


class Execution(BaseModel):
    """One device in one campaign."""

    device_id: str
    status: ExecutionStatus
    progress_pct: int | None
    error_message: str | None
    attempt: int = Field(description="Number of the current attempt; 0: never sent to")
    due_at: Moment | None = Field(description="Deadline: after it, the command is sent again, or the device is FAILED")
    started_at: Moment | None
    completed_at: Moment | None
    created_at: Moment | None


class ExecutionList(BaseModel):
    """One page of a campaign's devices, by device id."""

    campaign_id: int
    devices: list[Execution]
    total: int = Field(description="Over all pages, for the same filter")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")


class Event(BaseModel):
    """Something that happened to a campaign, or to one of its devices."""

    id: int
    at: Moment
    event: str
    actor: str = Field(description="`engine`, `device`, or the id of an API key")
    device_id: str | None = Field(description="null: the campaign as a whole")
    detail: dict[str, Any]


class EventList(BaseModel):
    """Events, oldest first. To watch, ask again with `after` set to `next_after`."""

    campaign_id: int
    events: list[Event]
    next_after: int


class Check(BaseModel):
    """What one gate says of a device."""

    gate: GateName = Field(description="Each is explained in docs/reference/gates.md")
    open: bool
    until: Moment | None = Field(description="When it opens; null: nothing tells, or it is open")
    text: str = Field(description="The same for people")
    detail: dict[str, Any] = Field(description="The numbers behind it")


class WaitingFor(BaseModel):
    """Devices that wait for the same gate."""

    reason: GateName = Field(description="The first gate that is closed to them; `pace` for those that may go now")
    devices: int
    until: Moment | None = Field(description="When it opens, for the first of them; null: nothing tells")
    detail: dict[str, Any]
    text: str


class Waiting(BaseModel):
    """What the PENDING devices of a campaign wait for. Each counts once, so that the sum is `pending`."""

    campaign_id: int
    as_of: Moment
    pending: int
    waiting: list[WaitingFor]


class Explanation(BaseModel):
    """Why a device is not sent to now, or that it may be."""

    campaign_id: int
    device_id: str
    status: ExecutionStatus
    attempt: int = Field(description="Number of the current attempt; 0: never sent to")
    wave: str | None = Field(description="Name of its wave; null: that is not known yet, or not kept")
    may_go_now: bool = Field(description="Every gate is open")
    may_go_at: Moment | None = Field(description="When the last closed gate opens; null: nothing tells")
    checks: list[Check] = Field(description="Every gate that applies, in the order in which they are asked")
    history: list[Event] = Field(description="What happened to the device, oldest first")
