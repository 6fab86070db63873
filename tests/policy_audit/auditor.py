"""Checks every rule about policy documents in one snapshot after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.policy_audit import guardrails, limits, places
from tests.policy_audit.claims import Claims
from tests.policy_audit.gates import Gates
from tests.policy_audit.quarantine import Quarantine
from tests.policy_audit.snapshot import Campaign, Connection, Json, Row, read
from tests.policy_audit.wire import Period

RULES = (
    places.cells,
    places.held,
    places.dispatch_numbers,
    places.present_wave,
    places.segments,
    places.sizes,
    limits.budget_counts,
    guardrails.guardrails,
)
"""The rules about one snapshot."""


@dataclass
class PolicyAuditor:
    """Follows all campaigns under a document. ``tick``: seconds; ``grace``: as for :class:`Claims`."""

    tick: float = 0.1
    grace: float = 0.5
    campaigns: int = 0
    """The number of campaigns checked, each once in every snapshot."""
    _before: dict[tuple[str, int], Campaign] = field(default_factory=dict)
    _gates: dict[tuple[str, int], Gates] = field(default_factory=dict)
    _labels: dict[tuple[str, int], Mapping[str, Json]] = field(default_factory=dict)
    """The labels of devices when they were placed: later changes move nobody."""
    _quarantines: dict[tuple[str, int], Quarantine] = field(default_factory=dict)
    _paces: dict[tuple[str, int], limits.Pace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._claims = Claims(self.grace)

    async def look(self, connection: Connection) -> list[str]:
        """Check the transaction's snapshot, and return what is wrong."""
        campaigns = await read(connection)
        claims = await self._claims.read(connection) if campaigns else []
        return [
            f"campaign {campaign.row['id']}, {campaign.row['status']}: {each}"
            for campaign in campaigns
            for each in self.check(campaign, claims)
        ]

    def check(self, campaign: Campaign, claims: Sequence[Row] = ()) -> Iterator[str]:
        """Check one campaign of a snapshot, after those before it."""
        self.campaigns += 1
        campaign = self._as_placed(campaign)
        own = [each for each in claims if each["campaign_id"] == campaign.row["id"]]
        before = self._before.get(campaign.key)
        for rule in RULES:
            yield from rule(campaign)
        for between in (limits.caps, limits.budgets, guardrails.begun_anew):
            yield from between(campaign, before)
        yield from self._gates.setdefault(campaign.key, Gates()).look(campaign, before)
        yield from self._paces.setdefault(campaign.key, limits.Pace(self.tick)).look(campaign, before)
        yield from self._quarantines.setdefault(campaign.key, Quarantine()).look(campaign, before, own)
        yield from self._claims.check(own, campaign)
        self._before[campaign.key] = campaign

    def quarantines(self) -> dict[int, dict[str, list[Period]]]:
        """By campaign and device: times in which it certainly was under quarantine."""
        return {campaign: each.periods() for (_, campaign), each in self._quarantines.items()}

    def _as_placed(self, campaign: Campaign) -> Campaign:
        if campaign.key not in self._labels or campaign.being_placed:
            self._labels[campaign.key] = campaign.labels
        return replace(campaign, labels={**campaign.labels, **self._labels[campaign.key]})
