"""What a search found, in responses."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rollwave.domain.campaign import CampaignStatus


class FoundCampaign(BaseModel):
    """A campaign that a search found."""

    id: int
    name: str | None
    status: CampaignStatus


class FoundFirmware(BaseModel):
    """A firmware version that a search found."""

    id: int
    version: str
    device_type: str | None


class Found(BaseModel):
    """What a search found, at most 10 objects of each kind."""

    campaigns: list[FoundCampaign] = Field(description="The one with this number first, then the newest")
    devices: list[str] = Field(description="Ids of devices, in their order")
    device_groups: list[str] = Field(description="Ids of device groups, in their order")
    firmware: list[FoundFirmware] = Field(description="Newest first")
