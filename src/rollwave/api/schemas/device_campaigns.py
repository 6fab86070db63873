"""The campaigns of one device, in responses."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.execution import ExecutionStatus


class DeviceCampaign(BaseModel):
    """One campaign of a device, and how far the device is in it."""

    campaign_id: int
    name: str | None
    campaign_status: CampaignStatus
    firmware_version: str | None
    status: ExecutionStatus = Field(description="Of the device")
    progress_pct: int | None
    attempt: int = Field(description="Number of the current attempt; 0: never sent to")
    error_message: str | None
    error_code: str | None = Field(description="Code of the last failed attempt, as the device reported it")
    failed_reason: str | None = Field(description="Why the last failed attempt counts as failed")
    started_at: Moment | None
    completed_at: Moment | None
    created_at: Moment | None


class DeviceCampaignList(BaseModel):
    """One page of a device's campaigns, newest first."""

    device_id: str
    campaigns: list[DeviceCampaign]
    total: int = Field(description="Over all pages")
    next_cursor: int | None = Field(description="`cursor` of the next page; null: this is the last one")
