"""The soaks that a campaign still has before it, for its plan and its forecast."""

from __future__ import annotations

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.store import waves
from rollwave.store.campaign_rows import Campaign


def soaks_left(campaign: Campaign, document: PolicyDocument) -> list[float]:
    """The seconds of soak of the present wave and each after it; of the present one what is left, if it has begun."""
    soaks = [each.gate.soak or 0.0 if each.gate else 0.0 for each in document.waves[campaign.wave :]]
    present = next((each for each in waves.of(campaign) if each.number == campaign.wave), None)
    if soaks and present is not None and present.soak is not None:
        soaks[0] = max(0.0, soaks[0] - (campaign.read_at - present.soak.since).total_seconds())
    return soaks
