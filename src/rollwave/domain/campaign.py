"""A campaign: its states, the actions that change them, and the time that counts for its deadlines.

A campaign is *active* while commands may be sent or, once aborted, while its last devices may still report. Otherwise
it is *suspended*: it is paused, or no listener is subscribed, and its deadlines stand still. Workers look at each
campaign every few seconds. If two looks are far apart, no worker could send in between, and that time counts as
suspended too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from types import MappingProxyType

from rollwave.domain.ids import CampaignId, TenantId

UNSEEN_SECONDS = 30.0
"""Maximum time between two looks that always counts as active. Workers look at least every ten seconds."""

LONGEST_UNSEEN_SECONDS = 600.0
"""Maximum time between two looks that counts as active if a listener was subscribed throughout: a host may call the
tick rarely."""

NOTE_EVERY_SECONDS = 5.0
"""Time after which the database is told again that a campaign is active."""


class CampaignStatus(StrEnum):
    """The values of ``ota_campaigns.status``."""

    CREATED = "CREATED"
    """Created. Nothing is sent until an operator starts it."""
    RUNNING = "RUNNING"
    """Commands are sent at the campaign's rate."""
    PAUSED = "PAUSED"
    """Nothing is sent. Reports are still applied and counted."""
    COMPLETED = "COMPLETED"
    """Every device is in a terminal state. Final."""
    ABORTED = "ABORTED"
    """Stopped by an operator or by its guardrail. Final; devices already in progress may still finish."""


class Action(StrEnum):
    """An action that changes a campaign's status. The first three are an operator's, the others the engine's."""

    START = "start"
    PAUSE = "pause"
    ABORT = "abort"
    TRIP = "guardrail trips"
    HOLD = "it cannot be sent, or must wait for an operator"
    FINISH = "no device left"

    @property
    def verb(self) -> str:
        """The verb for an error message, such as "abort" in "Cannot abort campaign 7"."""
        return {Action.TRIP: "abort", Action.HOLD: "pause", Action.FINISH: "complete"}.get(self, self.value)


@dataclass(frozen=True, slots=True, order=True)
class CampaignRef:
    """The tenant and id of a campaign, with its last known status. References to the same campaign are equal."""

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
"""Starting, pausing or aborting a campaign that is already in that state is no error: it changes nothing."""

FINAL = frozenset({_S.COMPLETED, _S.ABORTED})

PAUSED_BY_OPERATOR = "paused by an operator"
ABORTED_BY_OPERATOR, CANCELLED_BY_OPERATOR = "aborted by an operator", "cancelled by an operator"
"""The reasons of actions for which a person gave none. Any other reason of a pause is the engine's."""


def paused_by_operator(reason: str) -> bool:
    """Whether this is the reason of a person's pause. A host's column may be too narrow for all of it."""
    return PAUSED_BY_OPERATOR.startswith(reason)


def after(status: CampaignStatus, action: Action) -> CampaignStatus | None:
    """The state that ``action`` leads to; None if it is not allowed in ``status``."""
    return TRANSITIONS.get((status, action))


class Change(StrEnum):
    """The change of a campaign's activity that has to be recorded."""

    NONE = "none"
    SUSPEND = "suspend"
    ACTIVATE = "activate"
    NOTE = "note"
    """It is still active."""


@dataclass(frozen=True, slots=True)
class Activity:
    """How long a campaign has been active, and was suspended, in seconds of the database's clock.

    ``active_for``: time since it became active (None: it is suspended). ``seen_ago``: time since it was last known to
    be active (None: it never was). ``suspended_for``: total time of all suspensions. ``lately``: the part of it by
    which deadlines that were set before are extended.
    """

    active_for: float | None
    seen_ago: float | None
    suspended_for: float
    lately: float

    def change(self, *, active: bool, heard_for: float = inf, tick: float = 0.0) -> Change:
        """The change to record after a look that found the campaign ``active``, or suspended.

        ``heard_for``: seconds for which a listener has been subscribed without a gap. ``tick``: seconds between two
        looks of a host that calls the tick itself.
        """
        seen_ago = self.seen_ago or 0.0
        if not active:
            return Change.SUSPEND if self.active_for is not None or self.seen_ago is None else Change.NONE
        longest = max(LONGEST_UNSEEN_SECONDS, 3 * tick)
        if self.active_for is None or seen_ago > longest or (seen_ago > UNSEEN_SECONDS and heard_for < seen_ago):
            return Change.ACTIVATE
        return Change.NOTE if seen_ago > NOTE_EVERY_SECONDS or min(seen_ago, self.active_for) < 0 else Change.NONE

    def extension(self, longest: float) -> float:
        """Seconds by which deadlines are extended. ``longest``: the longest time for which a deadline is set.

        A deadline that was set before a suspension is extended by its length. Once the campaign has been active for
        ``longest``, every present deadline was set after the suspension, and none is extended.
        """
        return self.lately if self.active_for is None or self.active_for < longest else 0.0
