"""The counters of a campaign, read from the API's response."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rollwave.domain.campaign import FINAL, CampaignStatus
from rollwave.domain.execution import IN_PROGRESS, TERMINAL, ExecutionStatus
from rollwave.domain.overview.brakes import StoppedBy
from rollwave.domain.overview.guardrails import GuardrailStanding
from rollwave.domain.overview.waves import WaveStanding
from rollwave.domain.overview.waves import read as read_waves
from rollwave.domain.policy.flat_guardrail import Guardrail


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One campaign at one moment. ``by_state`` counts its devices and names every state.

    ``guardrails``: those of its policy document; None: it follows the flat columns, and ``threshold`` is its guardrail.
    ``waves``: empty until it is first started. ``brakes``: those that stop it now.
    """

    id: int
    name: str
    status: CampaignStatus
    version: str
    by_state: Mapping[ExecutionStatus, int]
    threshold: float | None
    min_completed: int
    wave: int
    waves: tuple[WaveStanding, ...]
    reason: str
    wanted: int
    targeted: int | None
    guardrails: tuple[GuardrailStanding, ...] | None = None
    brakes: tuple[StoppedBy, ...] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Snapshot:
        """Read the response of ``GET …/campaigns/{id}``."""
        breakdown = document.get("status_breakdown") or {}
        waves = read_waves(document.get("waves") or ())
        return cls(
            id=document["id"],
            name=document["name"] or "",
            status=CampaignStatus(document["status"]),
            version=document.get("firmware_version") or "",
            by_state={each: int(breakdown.get(each, 0)) for each in ExecutionStatus},
            threshold=document["abort_threshold"],
            min_completed=document.get("abort_min_completed") or 1,
            wave=document.get("wave") or 0,
            waves=waves,
            reason=document.get("status_reason") or "",
            wanted=document.get("total_devices") or 0,
            targeted=document.get("targeted_devices"),
            guardrails=None
            if document.get("policy_revision") is None
            else tuple(GuardrailStanding.read(each, waves) for each in document.get("guardrails") or ()),
            brakes=tuple(StoppedBy.read(each) for each in document.get("stopped_by") or ()),
        )

    @property
    def present_wave(self) -> str:
        """The wave that may be sent to now, with its state. Empty: there is only one, or the campaign has ended."""
        found = next((each for each in self.waves if each.number == self.wave), None)
        return "" if found is None or len(self.waves) == 1 or self.over else found.text(len(self.waves))

    @property
    def stopped_by(self) -> str:
        """The halt and the freezes that stop the campaign, in words. Empty: none does."""
        return "; ".join(each.text for each in self.brakes)

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
