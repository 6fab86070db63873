"""Halts and freezes in requests and responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from rollwave.api.fields import LongText, Moment
from rollwave.api.schemas import RequestModel
from rollwave.domain.brakes import BrakeKind
from rollwave.domain.policy.document.fields import Time

FreezeName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class HaltIn(RequestModel):
    """A request to stop all sending."""

    reason: Annotated[LongText, Field(min_length=1)] = Field(examples=["devices of 2.1.0 do not boot"])


class HaltState(BaseModel):
    """Whether all sending of the tenant is halted."""

    halted: bool
    since: Moment | None
    by: str | None = Field(description="Id of the API key, or the user of the command line, that halted it")
    by_name: str | None = Field(description="Name of that key; null: it has none")
    reason: str | None


class FreezeIn(RequestModel):
    """A freeze to add. Nothing is sent from `start` to before `end`."""

    name: FreezeName = Field(examples=["year-end"])
    start: Time = Field(examples=["2027-12-18T00:00:00Z"])
    end: Time = Field(examples=["2028-01-07T00:00:00Z"])
    reason: LongText | None = Field(None, examples=["the shops are open"])


class Freeze(BaseModel):
    """A freeze of the tenant."""

    name: str
    start: Moment
    end: Moment
    in_force: bool
    reason: str | None
    created_at: Moment
    created_by: str = Field(description="Id of the API key, or the user of the command line, that added it")
    created_by_name: str | None = Field(description="Name of that key; null: it has none")


class FreezeList(BaseModel):
    """One page of freezes, also those that are over, ordered by name."""

    freezes: list[Freeze]
    total: int = Field(description="Over all pages")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")


class StoppedBy(BaseModel):
    """A halt or a freeze that stops a campaign now."""

    kind: BrakeKind
    name: str = Field(description="Name of the freeze; of a halt: `halt`")
    since: Moment
    until: Moment | None = Field(description="null: until the halt is lifted")
    by: str = Field(description="Id of the API key, or the user of the command line, that set it")
    reason: str | None
