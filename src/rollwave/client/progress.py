"""The counters of a campaign, read from the API's response."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.execution import IN_PROGRESS, TERMINAL, ExecutionStatus
from rollwave.domain.policy.rules import Guardrail


@dataclass(frozen=True, slots=True)
class GuardrailStanding:
    """How far a guardrail of a policy document is from tripping. Shares are 0 to 1.

    ``limit``: lower bound on the true share of failures; None: the guardrail compares the ``value`` itself.
    """

    name: str
    action: str
    value: float
    limit: float | None
    threshold: float
    trips_after: int | None
    tripped: bool

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> GuardrailStanding:
        """Read an element of ``guardrails``."""
        return cls(*(entry[each.name] for each in fields(cls)))

    @property
    def used(self) -> float:
        """How near it is: 1 when it trips."""
        if self.tripped:
            return 1.0
        return min(1.0, (self.value if self.limit is None else self.limit) / max(self.threshold, 1e-9))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One campaign at one moment. ``by_state`` counts its devices and names every state.

    ``guardrails``: those of its policy document; None: it follows the flat columns, and ``threshold`` is its guardrail.
    """

    id: int
    name: str
    status: CampaignStatus
    version: str
    by_state: Mapping[ExecutionStatus, int]
    threshold: float | None
    min_completed: int
    wave: int
    waves: int | None
    reason: str
    wanted: int
    targeted: int | None
    guardrails: tuple[GuardrailStanding, ...] | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Snapshot:
        """Read the response of ``GET …/campaigns/{id}``."""
        breakdown = document.get("status_breakdown") or {}
        waves = document.get("waves")
        return cls(
            id=document["id"],
            name=document["name"] or "",
            status=CampaignStatus(document["status"]),
            version=document.get("firmware_version") or "",
            by_state={each: int(breakdown.get(each, 0)) for each in ExecutionStatus},
            threshold=document["abort_threshold"],
            min_completed=document.get("abort_min_completed") or 1,
            wave=document.get("wave") or 0,
            waves=len(waves) if isinstance(waves, list) else None,
            reason=document.get("status_reason") or "",
            wanted=document.get("total_devices") or 0,
            targeted=document.get("targeted_devices"),
            guardrails=None
            if document.get("policy_revision") is None
            else tuple(GuardrailStanding.read(each) for each in document.get("guardrails") or ()),
        )

    @property
    def total(self) -> int:
        return sum(self.by_state.values())

    @property
    def succeeded(self) -> int:
        return self.by_state[ExecutionStatus.SUCCESS]

    @property
    def failed(self) -> int:
        return self.by_state[ExecutionStatus.FAILED]

    @property
    def in_progress(self) -> int:
        return sum(self.by_state[each] for each in IN_PROGRESS)

    @property
    def closed(self) -> int:
        """Devices in a terminal state."""
        return sum(self.by_state[each] for each in TERMINAL)

    @property
    def over(self) -> bool:
        """Whether the campaign is in a final state. Devices in progress may still finish after an abort."""
        return self.status in FINAL

    @property
    def being_targeted(self) -> bool:
        """Whether the devices of a large group are still being targeted. Nothing is sent before that is done."""
        return self.targeted is not None and not self.over

    @property
    def counters_final(self) -> bool:
        """Whether the counters are final."""
        return self.over and self.closed == self.total

    @property
    def failure_rate(self) -> float:
        """Share of failed devices among the finished ones, 0 to 1. The guardrail compares it with the threshold."""
        finished = self.succeeded + self.failed
        return self.failed / finished if finished else 0.0

    @property
    def failures_to_trip(self) -> int | None:
        """Number of further failures in a row that trip the guardrail. None: it never trips."""
        if self.threshold is None or self.threshold >= 1:
            return None
        rule = Guardrail(self.threshold, self.min_completed)
        finished = self.succeeded + self.failed
        about = math.floor((self.threshold * finished - self.failed) / (1 - self.threshold))
        more = max(0, about, self.min_completed - finished)
        while not rule.trips(self.succeeded, self.failed + more):
            more += 1
        return more


@dataclass(slots=True)
class Meter:
    """How fast devices finish, over the last ``span`` seconds."""

    span: float = 30.0
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def see(self, now: float, snapshot: Snapshot) -> None:
        """Record the campaign at ``now`` (seconds of any monotonic clock)."""
        self._seen.append((now, snapshot.succeeded + snapshot.failed))
        while self._seen[-1][0] - self._seen[0][0] > self.span:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Devices finished per second."""
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        return (after - before) / (until - since) if until > since else 0.0

    def eta(self, snapshot: Snapshot) -> float | None:
        """Seconds until the last device finishes at this rate. None: unknown."""
        guessing = snapshot.status is not CampaignStatus.RUNNING or self.rate <= 0
        return None if guessing else (snapshot.total - snapshot.closed) / self.rate


def targeting(snapshot: Snapshot) -> str:
    """The progress of targeting a large group, in words."""
    return f"targeting {snapshot.targeted or 0:,} of {snapshot.wanted:,} devices"


def counts(snapshot: Snapshot) -> str:
    """The number of devices in each state that has any, in the order in which a device passes through them."""
    parts = [f"{count} {state}" for state, count in snapshot.by_state.items() if count]
    if snapshot.being_targeted:
        parts.insert(0, targeting(snapshot))
    return " · ".join(parts) or "no devices"
