"""Messages of devices that could not be read, in responses."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment


class BadMessage(BaseModel):
    """A message that could not be read."""

    id: int
    device_id: str = Field(description="From the topic of the message")
    received_at: Moment
    reason: str = Field(description="Why it could not be read")
    payload: str = Field(description="The beginning of the message as text; bytes that are not UTF-8 become U+FFFD")
    payload_base64: str = Field(description="The same bytes, at most 4,096")
    cut: bool = Field(description="Whether the message may have been longer")


class BadMessageList(BaseModel):
    """The newest messages that could not be read."""

    messages: list[BadMessage] = Field(description="Newest first")
    total: int = Field(description="Number of the messages that are kept, at most 1,000")
