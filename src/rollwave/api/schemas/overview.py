"""The overview of a campaign in responses: all that its page shows."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment
from rollwave.api.schemas.brakes import StoppedBy
from rollwave.api.schemas.executions import Event, WaitingFor
from rollwave.api.schemas.policies import AtStart
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.overview.headline import Level, RuleName
from rollwave.domain.policy.words import Method, Scope, TripAction, WaveState
from rollwave.domain.role import Role


class Headline(BaseModel):
    """The verdict: whether a person has to act. docs/reference/verdict.md lists the rules in their order."""

    level: Level = Field(description="`ok`: nothing to do; `watch`: look at it soon; `stop`: act now")
    rule: RuleName = Field(description="The first rule that holds; `none`: none does")
    text: str = Field(description="Why, as a sentence. It may have texts of operators and devices, so escape it")


class Devices(BaseModel):
    """The devices of a campaign by status."""

    total: int
    PENDING: int
    DOWNLOADING: int
    INSTALLING: int
    SUCCESS: int
    FAILED: int
    SKIPPED: int


class FromVersion(BaseModel):
    """A firmware version that devices of the campaign came from."""

    version: str
    devices: int = Field(description="Estimated from a sample of at most 500 devices")


class OverviewWave(BaseModel):
    """A wave and what it waits for."""

    number: int = Field(description="The first is 0")
    name: str
    size: int = Field(description="Number of its devices")
    sent: int = Field(description="Number of its devices that were sent to")
    succeeded: int | None = Field(description="null: not counted for each wave, as the campaign has no policy document")
    failed: int | None = Field(description="null: not counted for each wave, as the campaign has no policy document")
    state: WaveState
    since: Moment | None = Field(description="When it came into this state")
    until: Moment | None = Field(description="When its soak ends; null: it does not soak")
    text: str
    waits_for: str | None = Field(
        description="`soak`, `approval` or `gate` (which has failed); null: its devices are not finished, or it passed"
    )
    needs_role: Role | None = Field(description="Role of the key that may promote it now; null: it waits for no one")


class OverviewGuardrail(BaseModel):
    """A guardrail, with how much of it is used up."""

    name: str
    scope: Scope
    method: Method
    action: TripAction
    group: str = Field(description="The group of devices closest to tripping; empty: the whole campaign")
    wave: int | None = Field(description="Number of the wave that is this group; null: it is no wave")
    labels: dict[str, str | None] | None = Field(description="The labels of this group; null: it has none")
    value: float = Field(description="Share of devices that failed, 0 to 1")
    limit: float | None = Field(description="`sequential`: lower bound on the true share of failures; null: none")
    threshold: float = Field(description="Share of failures over which it trips, 0 to 1")
    trips_after: int | None = Field(description="Least number of further failures that trip it; null: none does")
    trips: str = Field(description="When it trips, in words; empty: never, or it has tripped")
    tripped: bool
    used: float = Field(description="How near it is, 0 to 1; 1: it trips")
    text: str


class OverviewSegment(BaseModel):
    """Devices that the policy treats alike."""

    number: int
    labels: dict[str, str | None]
    text: str
    waiting: int = Field(description="Number of devices never sent to")
    in_flight: int = Field(description="Number of devices sent to that have not ended")
    succeeded: int
    failed: int
    quarantined: bool


class Forecast(BaseModel):
    """When the campaign is likely to end."""

    earliest: Moment | None
    latest: Moment | None
    text: str = Field(description="The forecast as a sentence, or why there is none")


class PlanEnd(BaseModel):
    """The plan: the campaign as if every gate passed at once."""

    ends_at: Moment | None


class TopCause(BaseModel):
    """A cause of failures."""

    code: str | None
    label: str | None = Field(description="A label that these devices share, such as `revision=B`; null: none")
    from_version: str | None
    devices: int
    text: str


class Actions(BaseModel):
    """What may be done to the campaign in its state. The role of the key is checked when it is done."""

    start: bool
    pause: bool
    resume: bool
    abort: bool
    cancel: bool
    retry: int = Field(description="Number of failed devices that may get another attempt")


class Overview(BaseModel):
    """All that the page of a campaign shows, read in one transaction."""

    campaign_id: int
    as_of: Moment
    name: str | None
    status: CampaignStatus
    status_reason: str | None
    version: str | None = Field(description="Version of the firmware")
    from_versions: list[FromVersion] = Field(
        description="The three most common versions of its devices when it was first sent; empty: unknown"
    )
    rules: str = Field(description="Its policy in one line; empty: it cannot be read")
    headline: Headline
    stopped_by: list[StoppedBy] = Field(description="The halt and the freezes of the tenant that stop it now")
    devices: Devices
    finished_share: float = Field(description="Share of its devices that have succeeded or failed, 0 to 1")
    failure_rate: float = Field(description="Share of failed devices among the finished ones, 0 to 1")
    rate_per_minute: float | None = Field(description="Devices that finish per minute; null: unknown")
    waves: list[OverviewWave] = Field(description="Empty until the campaign is first started")
    guardrails: list[OverviewGuardrail] = Field(description="The most used one first")
    segments: list[OverviewSegment] = Field(description="Those that fail most, at most ten")
    forecast: Forecast
    plan: PlanEnd | None
    causes: list[TopCause] = Field(description="The five most frequent causes of failures")
    waiting: list[WaitingFor]
    events: list[Event] = Field(description="The last 20 events, newest first")
    started_at: Moment | None
    completed_at: Moment | None
    created_by: str | None = Field(description="Id of the API key that created it")
    created_by_name: str | None = Field(description="Name of that key; null: it has none")
    actions: Actions
    at_start: AtStart | None = Field(description="What starting it does now; null: it was started")
