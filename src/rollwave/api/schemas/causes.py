"""The causes of a campaign's failures, in responses."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Cause(BaseModel):
    """Failed devices that have all of this in common. null: not grouped by it, or the devices do not have it."""

    devices: int
    code: str | None = Field(description="Code of the last failed attempt, as the devices reported it")
    reason: str | None = Field(description="Of failures without a code: why the last attempt counts as failed")
    message: str | None = Field(description="Of failures without a code: the error message, its digits replaced by #")
    label: str | None = Field(description="`key=value` of the label; `key=` if the devices do not have the label")
    from_version: str | None = Field(description="Version that the devices ran when they last said so")
    text: str = Field(description="The cause as a sentence")


class Causes(BaseModel):
    """Why devices of a campaign fail."""

    campaign_id: int
    failed: int = Field(description="Number of FAILED devices, at most 100,000")
    read: int = Field(description="Number of failures that `causes` is of: the last 5,000")
    by: list[str] = Field(description="What the failures are grouped by, with the label that was chosen")
    label: str | None = Field(description="Key of the label; null: none explains the failures, or none was asked for")
    text: str = Field(description="What share of the failures `causes` is of; empty: of all")
    causes: list[Cause] = Field(description="Those with most devices first, at most `limit`")
    others: int = Field(description="Number of devices of further causes")
