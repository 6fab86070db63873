"""The schemas of requests and responses. Requests are strict: a misspelt rule must not count as a missing one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """A request. It converts no types and refuses unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid")
