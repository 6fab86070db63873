"""Segments in responses."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment


class Quarantine(BaseModel):
    """Why nothing is sent to a segment."""

    since: Moment
    reason: str | None


class Segment(BaseModel):
    """The devices of a campaign with the same values of the labels that its windows and guardrails mention."""

    number: int = Field(description="From 1")
    labels: dict[str, str | None] = Field(
        description="Value by label; null: the devices do not have it", examples=[{"hardware_revision": "C"}]
    )
    waiting: int = Field(description="Number of devices never sent to")
    in_flight: int = Field(description="Number of devices sent to that have not ended")
    succeeded: int
    failed: int
    quarantined: Quarantine | None = Field(description="null: it is not under quarantine")


class SegmentList(BaseModel):
    """A page of segments, ordered by number."""

    campaign_id: int
    segments: list[Segment]
    total: int
    next_cursor: int | None = Field(description="Cursor of the next page; null: this is the last one")
