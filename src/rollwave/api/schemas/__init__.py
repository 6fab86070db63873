"""What requests and answers look like. Requests are strict: a misspelt rule must not be a missing one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """No conversions between types, no keys that nobody reads."""

    model_config = ConfigDict(strict=True, extra="forbid")
