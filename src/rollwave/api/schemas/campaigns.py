"""Campaigns in requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from rollwave.api.fields import MAX_JSON_INTEGER, WHOLE, Finite, LongText, Moment, Text
from rollwave.api.schemas import RequestModel
from rollwave.api.schemas.brakes import StoppedBy
from rollwave.api.schemas.guardrails import GuardrailStanding
from rollwave.api.schemas.overview import Devices, Forecast, Headline
from rollwave.api.schemas.policies import Advised
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.document.fields import MAX_NAME, NAME_PATTERN
from rollwave.domain.policy.words import WaveState
from rollwave.domain.retry import MAX_ATTEMPTS, Reason

MAX_RATE = 1_000_000

MAX_DEVICES = 2**31 - 1

MAX_PROGRESS_TIMEOUT = 31_536_000.0

RetriedReason = Literal[Reason.NO_ANSWER, Reason.NO_PROGRESS, Reason.REPORTED, Reason.REJECTED]
"""The reasons that a campaign may retry. Exceeding the device timeout is always final."""

GivenPolicy = Annotated[
    str | dict[str, Any],
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME_PATTERN},
                {"type": "object"},
            ]
        }
    ),
]
"""The name of a policy, or a document, which the parser of policies checks. OpenAPI refers to its schema."""

FLAT_RULES = frozenset(
    {
        *("rollout_strategy", "rollout_rate", "abort_threshold", "abort_min_completed", "canary_percent"),
        *("max_in_flight", "progress_timeout", "answer_timeout", "device_timeout", "max_attempts"),
        *("retry_on", "retry_delay", "retry_delay_max"),
    }
)
"""The rules of a campaign without a policy document."""


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
        description="Its members become the campaign's devices. If a device joins or leaves the group during "
        "targeting, it may or may not be included"
    )
    rollout_strategy: Literal["linear", "canary"] = Field(
        "linear",
        description="`canary` updates a share of the devices first. The others follow when all of these have finished "
        "and the guardrail holds",
    )
    rollout_rate: Annotated[int, Field(ge=1, le=MAX_RATE), WHOLE] = Field(
        10, description="Maximum number of devices per tick (10 s by default)"
    )
    abort_threshold: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Maximum share of failed devices among the finished ones; above it, the campaign is aborted",
    )
    abort_min_completed: Annotated[int, Field(ge=1, le=MAX_DEVICES), WHOLE] = Field(
        1, description="Minimum number of finished devices before `abort_threshold` applies"
    )
    canary_percent: float = Field(
        5.0, gt=0, le=100, allow_inf_nan=False, description="Size of the first wave, in percent of the devices"
    )
    max_in_flight: Annotated[int, Field(ge=1, le=MAX_DEVICES), WHOLE] | None = Field(
        None, description="Maximum number of devices in flight; null: no maximum"
    )
    progress_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None,
        description="Maximum time between two reports of a device in progress, in seconds; null: the server's setting",
    )
    max_attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS), WHOLE] | None = Field(
        None, description="Maximum number of attempts per device; null: the server's setting"
    )
    answer_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum time to a device's first report, in seconds; null: the same as progress_timeout"
    )
    device_timeout: Annotated[float, Field(gt=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum time for a device over all attempts, in seconds; null: the server's setting"
    )
    retry_on: Annotated[list[RetriedReason], Field(max_length=4)] | None = Field(
        None,
        description="Reasons of failure after which another attempt follows; null: `no_answer` and `no_progress`",
        examples=[["no_answer", "no_progress", "reported"]],
    )
    retry_delay: Annotated[float, Field(ge=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None,
        description="Pause before the second attempt, in seconds; it doubles each time; null: progress_timeout / 30",
    )
    retry_delay_max: Annotated[float, Field(ge=0, le=MAX_PROGRESS_TIMEOUT, allow_inf_nan=False)] | None = Field(
        None, description="Maximum pause before an attempt, in seconds; null: an hour"
    )
    policy: GivenPolicy | None = Field(
        None,
        description="A policy document, or the name of a preset or of a stored policy, which is copied. It takes the "
        "place of all rules above, none of which may be given with it",
    )

    @model_validator(mode="after")
    def _policy_stands_alone(self) -> CampaignIn:
        beside = sorted(self.model_fields_set & FLAT_RULES)
        if self.policy is not None and beside:
            raise PydanticCustomError("policy", "{text}", {"text": f"policy takes the place of {', '.join(beside)}"})
        return self


class Abort(RequestModel):
    """A request to abort or cancel a campaign."""

    reason: LongText | None = Field(None, examples=["battery drain seen in the lab"])


class Campaign(BaseModel):
    """A campaign and its firmware."""

    id: int
    tenant_id: str
    name: str | None
    status: CampaignStatus
    status_reason: str | None = Field(description="Reason for which it was paused or aborted")
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
    total_devices: int | None = Field(
        description="Number of devices of the campaign; during targeting, the number of members of its group"
    )
    targeted_devices: int | None = Field(
        description="Number of devices targeted so far; nothing is sent until all are. null: all are targeted. "
        "If the campaign was aborted during targeting, the number reached"
    )
    sent: int = Field(description="Number of devices that were sent to at least once")
    succeeded: int | None
    failed: int | None
    wave: int = Field(description="Number of the wave that may be sent to now")
    started_at: Moment | None
    completed_at: Moment | None
    cancelled_at: Moment | None = Field(
        description="Since when its devices are told to stop; null: it was not cancelled"
    )
    created_at: Moment | None
    created_by: str | None = Field(description="Id of the API key that created it")
    created_by_name: str | None = Field(description="Name of that key; null: it has none")
    policy_revision: int | None = Field(
        description="Revision of the policy document that it follows, so that its flat rules mean nothing; null: none"
    )


class Wave(BaseModel):
    """A part of the campaign's devices. When it has passed, the next wave opens."""

    name: str
    number: int = Field(description="The first is 0")
    size: int = Field(description="Number of its devices")
    sent: int = Field(description="Number of its devices that were sent to")
    succeeded: int | None = Field(description="null: not counted for each wave, as the campaign has no policy document")
    failed: int | None = Field(description="null: not counted for each wave, as the campaign has no policy document")
    state: WaveState
    since: Moment | None = Field(description="When it came into this state")
    up_to: int | None = Field(
        description="Without a policy document: number of devices in this wave and all earlier ones; null: all devices"
    )
    opened_at: Moment | None
    passed_at: Moment | None


class CampaignDetail(Campaign):
    """A campaign with its progress, read in one snapshot."""

    status_breakdown: dict[ExecutionStatus, int] = Field(
        description="Number of devices by status; every status is present",
        examples=[{"PENDING": 90, "DOWNLOADING": 4, "INSTALLING": 1, "SUCCESS": 5, "FAILED": 0, "SKIPPED": 0}],
    )
    waves: list[Wave] = Field(description="Empty until the campaign is first started")
    guardrails: list[GuardrailStanding] = Field(description="Empty if it has none, or they cannot be read")
    stopped_by: list[StoppedBy] = Field(description="The halt and the freezes of the tenant that stop it now")
    headline: Headline


class CreatedCampaign(CampaignDetail, Advised):
    """A campaign that was created. Without a policy document, nothing is warned of."""


class ListedCampaign(Campaign):
    """A campaign in a list, with its verdict."""

    headline: Headline
    devices: Devices
    finished_share: float = Field(description="Share of its devices that have succeeded or failed, 0 to 1")
    failure_rate: float = Field(description="Share of failed devices among the finished ones, 0 to 1")
    trips_after: int | None = Field(
        description="Least number of further failures that trip its most used guardrail; null: no number "
        "does, the guardrail has tripped, or the campaign has ended"
    )
    waves: int = Field(description="Number of its waves; 0: it was not started yet")
    forecast: Forecast | None = Field(description="null: it does not run")
    ended_by: str | None = Field(
        description="Who ended it: the id of an API key, or `engine`; null: it has not ended, or other SQL ended it"
    )
    ended_by_name: str | None = Field(description="Name of that key; null: it has none")
    from_versions: list[str] = Field(
        description="Versions of its devices when it was first sent, the most common first; empty: unknown"
    )


class CampaignList(BaseModel):
    """One page of campaigns, newest first."""

    campaigns: list[ListedCampaign]
    total: int = Field(description="Over all pages, for the same filter")
    next_cursor: int | None = Field(description="`cursor` of the next page; null: this is the last one")


class CampaignState(BaseModel):
    """The state that a campaign is in now."""

    id: int
    status: CampaignStatus


class Promotion(RequestModel):
    """A request to open the gate of a wave."""

    reason: LongText | None = Field(None, examples=["the failures are of one faulty cable"])


class RetriedDevices(CampaignState):
    """The result of giving failed devices another attempt."""

    devices: int = Field(description="Number of devices that get another attempt")
