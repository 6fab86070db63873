"""A campaign: its states, and who may move it between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from rollwave.domain.ids import CampaignId, TenantId


class CampaignStatus(StrEnum):
    """The words of ``ota_campaigns.status``."""

    CREATED = "CREATED"
    """Written down; nothing is sent until an operator starts it."""
    RUNNING = "RUNNING"
    """Commands go out at the campaign's rate."""
    PAUSED = "PAUSED"
    """Nothing is sent; reports are still taken and counted."""
    COMPLETED = "COMPLETED"
    """Every device is in a terminal state. Final."""
    ABORTED = "ABORTED"
    """Stopped by an operator or by its guardrail. Final; devices already in progress may still finish."""


class Action(StrEnum):
    """What can move a campaign. The first three are an operator's; the rest are the engine's."""

    START = "start"
    PAUSE = "pause"
    ABORT = "abort"
    TRIP = "guardrail trips"
    HOLD = "a rule cannot be read"
    FINISH = "no device left"

    @property
    def verb(self) -> str:
        """What the action does to the campaign, as an error message says it: "Cannot abort campaign 7"."""
        return {Action.TRIP: "abort", Action.HOLD: "pause", Action.FINISH: "complete"}.get(self, self.value)


@dataclass(frozen=True, slots=True, order=True)
class CampaignRef:
    """Which campaign, and the status in which it was seen last. Two are equal that name the same campaign."""

    tenant_id: TenantId
    campaign_id: CampaignId
    status: CampaignStatus = field(compare=False)


_S, _A = CampaignStatus, Action

TRANSITIONS: Mapping[tuple[CampaignStatus, Action], CampaignStatus] = MappingProxyType(
    {
        (_S.CREATED, _A.START): _S.RUNNING,
        (_S.CREATED, _A.ABORT): _S.ABORTED,
        (_S.RUNNING, _A.START): _S.RUNNING,
        (_S.RUNNING, _A.PAUSE): _S.PAUSED,
        (_S.RUNNING, _A.ABORT): _S.ABORTED,
        (_S.RUNNING, _A.TRIP): _S.ABORTED,
        (_S.RUNNING, _A.HOLD): _S.PAUSED,
        (_S.RUNNING, _A.FINISH): _S.COMPLETED,
        (_S.PAUSED, _A.START): _S.RUNNING,
        (_S.PAUSED, _A.PAUSE): _S.PAUSED,
        (_S.PAUSED, _A.ABORT): _S.ABORTED,
        (_S.PAUSED, _A.TRIP): _S.ABORTED,
        (_S.PAUSED, _A.FINISH): _S.COMPLETED,
        (_S.ABORTED, _A.ABORT): _S.ABORTED,
    }
)
"""Asking twice for a state a campaign is in already is no error: the same answer comes back."""

FINAL = frozenset({_S.COMPLETED, _S.ABORTED})


def after(status: CampaignStatus, action: Action) -> CampaignStatus | None:
    """The state ``action`` leads to, or None when it is not allowed in ``status``."""
    return TRANSITIONS.get((status, action))
