"""A campaign's own rules, with the process's settings where it has none."""

from __future__ import annotations

from typing import TypeVar

from rollwave.domain.policy import document
from rollwave.domain.policy.document import Rules
from rollwave.domain.policy.guardrail import Guardrail
from rollwave.domain.policy.waves import Strategy, Wave, plan
from rollwave.domain.retry import RetryPolicy
from rollwave.errors import InvalidInput
from rollwave.settings import Settings
from rollwave.store import waves
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection

T = TypeVar("T")


def read_rules(campaign: Campaign, settings: Settings) -> Rules:
    """Read them.

    Raises:
        InvalidInput: one cannot be read, so the campaign must be held.
    """

    def own(value: T | None, default: T) -> T:
        return default if value is None else value

    return document.read(
        tenant_id=campaign.tenant_id,
        threshold=campaign.threshold,
        min_completed=campaign.min_completed,
        rate=campaign.rate,
        max_in_flight=campaign.max_in_flight,
        patience=own(campaign.progress_timeout, settings.progress_timeout),
        answer_within=campaign.answer_timeout,
        device_timeout=own(campaign.device_timeout, settings.device_timeout),
        max_attempts=own(campaign.max_attempts, settings.max_attempts),
        retry_on=campaign.retry_on,
        retry_delay=campaign.retry_delay,
        retry_delay_max=campaign.retry_delay_max,
    )


def rules_or_default(campaign: Campaign, settings: Settings) -> Rules:
    """The campaign's rules, or where they cannot be read, the process's own: for a campaign that sends nothing more."""
    try:
        return read_rules(campaign, settings)
    except InvalidInput:
        return default_rules(settings)


def default_rules(settings: Settings) -> Rules:
    """The process's own."""
    return Rules(
        Guardrail(1.0),
        rate=1,
        max_in_flight=None,
        patience=settings.progress_timeout,
        answer_within=settings.progress_timeout,
        device_timeout=settings.device_timeout,
        retry=RetryPolicy(),
    )


async def read_waves(connection: Connection, campaign: Campaign, *, devices: int | None) -> tuple[Wave, ...]:
    """The campaign's waves; planned now if nobody has. Needs the campaign's lock.

    None yet: a share of its ``devices`` goes first, and they are to be counted for that.

    Raises:
        InvalidInput: the strategy or one of its numbers cannot be read.
    """
    if campaign.waves:
        return campaign.waves
    if not devices and campaign.strategy == Strategy.CANARY:
        return ()
    planned = plan(campaign.strategy, devices or 0, campaign.canary_percent)
    await waves.insert(connection, campaign, planned)
    return planned
