"""The past of a campaign in responses, with its plan and its forecast."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from rollwave.api.fields import Moment
from rollwave.domain.overview.markers import MarkerKind


class _Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Point(_Row):
    """The number of devices in each state at one time."""

    at: Moment
    pending: int
    downloading: int
    installing: int
    succeeded: int
    failed: int
    skipped: int


class PlanPoint(_Row):
    """Devices that the policy would have sent to by a time. Between two points their number rises evenly."""

    at: Moment
    devices: int


class BandPoint(_Row):
    """The least and the greatest number of finished devices that are expected at a time."""

    at: Moment
    low: int
    high: int


class Forecast(_Row):
    """When the campaign will be done."""

    earliest: Moment | None = Field(description="null: there is no forecast")
    latest: Moment | None = Field(description="null: there is no forecast, or the present rate is too uneven")
    text: str = Field(description="The forecast in words, or why there is none")
    band: list[BandPoint] = Field(description="For a chart. Empty: there is no forecast")


class Marker(_Row):
    """An event that a chart marks."""

    at: Moment
    kind: MarkerKind
    text: str


class Timeline(BaseModel):
    """What a chart of a campaign shows."""

    campaign_id: int
    points: list[Point] = Field(description="Oldest first. The last one has the counters of now")
    plan: list[PlanPoint] | None = Field(description="null: the policy does not limit devices per minute")
    forecast: Forecast
    rate_per_minute: float | None = Field(description="Devices that finish per minute now; null: it does not run")
    recent: list[float] = Field(
        description="Devices that finished per minute, in 30 equal parts of the last hour or of the whole campaign"
    )
    markers: list[Marker]
