"""Guardrails and quarantined segments in requests and responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rollwave.api.fields import LongText, Moment
from rollwave.api.schemas import RequestModel
from rollwave.domain.policy.words import Method, Scope, TripAction


class GuardrailStanding(BaseModel):
    """How far a guardrail is from tripping. If it judges groups of devices, the group that is closest is shown.

    A campaign with flat columns has one, of `abort_threshold`. docs/reference/guardrails.md explains the numbers.
    """

    name: str
    scope: Scope
    method: Method
    action: TripAction
    value: float = Field(
        description="Share of devices that failed, 0 to 1: of the finished ones (`ratio`), or of those "
        "sent to first that give the limit (`sequential`)"
    )
    limit: float | None = Field(
        description="`sequential`: lower bound on the true share of failures, 0 to 1; over the threshold, it trips. "
        "null: the method has none"
    )
    threshold: float = Field(description="Share of failures over which it trips, 0 to 1")
    trips_after: int | None = Field(description="Least number of further failures that trip it; null: no number does")
    finished: int = Field(description="Number of devices of the group that have finished since the test began")
    failed: int = Field(description="Number of them that failed in a way that the guardrail counts")
    min_finished: int = Field(description="Finished devices before it may trip, except at the gate of a wave")
    tripped: bool
    tripped_at: Moment | None
    evidence: dict[str, Any] | None = Field(
        description="Rule, numbers and devices of the trip; null: it has not tripped"
    )
    wave: int | None = Field(description="Scope `wave`: number of the wave, from 0")
    labels: dict[str, Any] | None = Field(description="Scope `segment`: the labels of the group")


class Release(RequestModel):
    """A request to release a segment from quarantine."""

    reason: LongText | None = Field(None, examples=["bootloader of revision C is fixed"])
