"""A device of a campaign's field, in responses."""

from __future__ import annotations

from pydantic import BaseModel

from rollwave.domain.execution import ExecutionStatus


class DeviceAt(BaseModel):
    """The device at an index of the field."""

    campaign_id: int
    index: int
    device_id: str
    status: ExecutionStatus
