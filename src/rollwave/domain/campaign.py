"""A campaign: its states, who may move it between them, and the time that counts for its deadlines.

A campaign is *active* while commands may go out, or, once aborted, while its last devices may still report. Else it
is *suspended*: paused, or without a listener, for whatever reason. Deadlines stand still then. Workers look at each
campaign every few seconds, and what lies between two looks that are far apart counts as suspended too: no worker was
there to send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from types import MappingProxyType

from rollwave.domain.ids import CampaignId, TenantId

UNSEEN_SECONDS = 30.0
"""Time between two looks that counts as active, whatever happened in it. Workers look at least every ten seconds."""

LONGEST_UNSEEN_SECONDS = 600.0
"""Time between two looks that counts as active where a listener was subscribed all the while: a host may look as seldom
as it likes."""

NOTE_EVERY_SECONDS = 5.0
"""Time after which it is written down again that a campaign is active."""


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
    PAUSE_UNREADABLE = "a rule cannot be read"
    FINISH = "no device left"

    @property
    def verb(self) -> str:
        """What the action does to the campaign, as an error message says it: "Cannot abort campaign 7"."""
        return {Action.TRIP: "abort", Action.PAUSE_UNREADABLE: "pause", Action.FINISH: "complete"}.get(self, self.value)


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
        (_S.RUNNING, _A.PAUSE_UNREADABLE): _S.PAUSED,
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


class Change(StrEnum):
    """What is to be written down about a campaign's activity."""

    NONE = "none"
    SUSPEND = "suspend"
    ACTIVATE = "activate"
    NOTE = "note"
    """It is still active."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Since when a campaign is active, and for how long it was suspended. Times are seconds, of the database's clock.

    ``active_for``: time since it became active (None: it is suspended). ``seen_ago``: time since it was last known to
    be active (None: it never was). ``suspended_for``: time for which it was suspended, in all; ``lately``: the part of
    it by which deadlines that were set before may still have to be later.
    """

    active_for: float | None
    seen_ago: float | None
    suspended_for: float
    lately: float

    def change(self, *, active: bool, heard_for: float = inf, tick: float = 0.0) -> Change:
        """What follows from a look that finds the campaign ``active``, or suspended.

        ``heard_for``: for how long a listener has been subscribed without a gap. ``tick``: a host that looks itself
        does so once in this time.
        """
        seen_ago = self.seen_ago or 0.0
        if not active:
            return Change.SUSPEND if self.active_for is not None or self.seen_ago is None else Change.NONE
        longest = max(LONGEST_UNSEEN_SECONDS, 3 * tick)
        if self.active_for is None or seen_ago > longest or (seen_ago > UNSEEN_SECONDS and heard_for < seen_ago):
            return Change.ACTIVATE
        return Change.NOTE if seen_ago > NOTE_EVERY_SECONDS or min(seen_ago, self.active_for) < 0 else Change.NONE

    def extension(self, longest: float) -> float:
        """Seconds by which deadlines are later than they were set; ``longest``: the longest time that one is set for.

        A deadline that was set before a suspension is later by the length of that. Once the campaign has been active
        for as long as the longest deadline, every deadline that runs was set since.
        """
        return self.lately if self.active_for is None or self.active_for < longest else 0.0
