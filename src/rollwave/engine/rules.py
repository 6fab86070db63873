"""A campaign's own rules, with the process's settings where it has none."""

from __future__ import annotations

from rollwave.domain import rules
from rollwave.domain.rules import Rules
from rollwave.domain.wave import Wave, plan
from rollwave.settings import Settings
from rollwave.store import executions, waves
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection


def read_rules(campaign: Campaign, settings: Settings) -> Rules:
    """Read them.

    Raises:
        InvalidInput: one cannot be read, so the campaign must be held.
    """
    return rules.read(
        tenant_id=campaign.tenant_id,
        threshold=campaign.threshold,
        min_completed=campaign.min_completed,
        rate=campaign.rate,
        max_in_flight=campaign.max_in_flight,
        patience=patience_of(campaign, settings),
        max_attempts=settings.max_attempts if campaign.max_attempts is None else campaign.max_attempts,
    )


def patience_of(campaign: Campaign, settings: Settings) -> float:
    """Seconds that a device of this campaign may stay silent."""
    return settings.progress_timeout if campaign.progress_timeout is None else campaign.progress_timeout


async def read_waves(connection: Connection, campaign: Campaign) -> tuple[Wave, ...]:
    """The campaign's waves; planned now if nobody has. Needs the campaign's lock.

    Raises:
        InvalidInput: the strategy or one of its numbers cannot be read.
    """
    found = await waves.get(connection, campaign)
    if found:
        return found
    planned = plan(campaign.strategy, await executions.count_all(connection, campaign), campaign.canary_percent)
    await waves.insert(connection, campaign, planned)
    return planned
