"""Reads a campaign with its policy and waves. A claim and a look do this first, under the campaign's lock.

*waiting* and *explain* read the same without the lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from rollwave.domain import firmware
from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.policy.facts import Facts, Remaining
from rollwave.domain.policy.flat_guardrail import Guardrail
from rollwave.domain.policy.pace import require_size, start_within
from rollwave.domain.policy.rules import Policy, Wave, own_times, policy_of, read_policy
from rollwave.domain.retry import RetryPolicy
from rollwave.errors import UnreadableRow
from rollwave.mqtt.payload import encode_command
from rollwave.settings import Settings
from rollwave.store import campaigns, policies
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CampaignUnderPolicy:
    """A campaign's row, with the policy and waves read from it.

    ``unreadable``: the reason for which its policy or waves cannot be read (None: they can). Before anything is sent,
    such a campaign is paused; its ``policy`` then has the process's settings, to wind the campaign down. ``waves`` are
    empty if the campaign's devices must be counted before waves are planned.
    """

    row: Campaign
    policy: Policy
    waves: tuple[Wave, ...]
    unreadable: str | None

    @property
    def wave(self) -> Wave:
        """The present wave."""
        return self.waves[min(self.row.wave, len(self.waves) - 1)] if self.waves else Wave(0, None)

    def facts(
        self, settings: Settings, *, heard: bool, in_flight: int = 0, steps: int = 1, remaining: Remaining | None = None
    ) -> Facts:
        """The facts for admission. ``steps``: number of parts in which a tick's devices are sent to."""
        row = self.row
        return Facts(
            now=row.read_at,
            status=row.status,
            tick=settings.tick_interval,
            wave=self.wave,
            reason=row.status_reason,
            unreadable=self.unreadable,
            in_own_database=row.in_own_database,
            targeted=row.targeted_devices or 0 if row.being_targeted or row.must_be_placed else None,
            targeting_fault=row.placing_fault,
            counted=row.counted and bool(self.waves),
            heard=heard,
            sent=row.sent,
            in_flight=in_flight,
            interval_age=row.pace_age,
            interval_used=row.pace_used,
            steps=steps,
            remaining=remaining,
            brakes=row.brakes,
        )


async def lock_campaign(
    connection: Connection, ref: CampaignRef, settings: Settings, *, devices: int | None = None
) -> CampaignUnderPolicy:
    """Lock a campaign's row until the transaction ends, and read it. Plans its waves if they are not planned yet.

    ``devices``: the number of its devices, if they have just been counted.

    Raises:
        NotFound: this tenant has no such campaign.
    """
    row = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
    found = under_policy(row, settings, devices=devices)
    goes_on = row.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED} and not row.being_targeted
    if goes_on and row.policy_revision is None and not row.waves and found.waves and found.unreadable is None:
        await campaigns.insert_waves(connection, row, found.waves)
    if row.document is not None and row.own_times != own_times(row.document):
        # A revision that a host wrote by hand: SQL that applies reports decides by these columns.
        await policies.write_own_times(connection, row.tenant_id, row.id, row.policy_revision or 0, row.document)
    return found


def under_policy(row: Campaign, settings: Settings, *, devices: int | None = None) -> CampaignUnderPolicy:
    """Read the policy and waves of a campaign's row. The process's settings replace missing values."""
    policy = _default(settings)
    try:
        policy = _read(row, settings)
        planned = row.waves
        if policy.document is not None:
            planned = tuple(Wave(number, None) for number in range(max(1, len(policy.document.waves))))
        elif not planned and (devices or not policy.needs_a_count):
            planned = policy.plan(devices or 0)
    except UnreadableRow as error:
        return CampaignUnderPolicy(row, policy, row.waves, str(error))
    return CampaignUnderPolicy(row, policy, planned, None)


@dataclass(frozen=True, slots=True)
class Command:
    """A campaign's command ``body``, stored by its first claim if there was one; or why it is ``unreadable``."""

    body: str = ""
    unreadable: str | None = None


def command_of(campaign: CampaignUnderPolicy) -> Command:
    """The command of the campaign, if its policy and firmware can be read."""
    row = campaign.row
    if campaign.unreadable is not None:
        return Command(unreadable=campaign.unreadable)
    try:
        if campaign.policy.document is not None:
            size = row.firmware_size
            require_size(campaign.policy.document.pace, size if isinstance(size, int) else None)
        if row.command is not None:
            return Command(row.command)
        found = firmware.read(row.firmware_url, row.firmware_version, row.firmware_checksum, row.firmware_size)
    except UnreadableRow as error:
        return Command(unreadable=str(error))
    rule = campaign.policy.document.pace if campaign.policy.document is not None else None
    jitter = None if rule is None else start_within(rule)
    body = encode_command(row.id, found.url, found.version, found.checksum, found.size, start_within=jitter)
    return Command(body.decode())


def _read(row: Campaign, settings: Settings) -> Policy:
    def own(value: T | None, default: T) -> T:
        return default if value is None else value

    if row.document_fault is not None:
        raise UnreadableRow(row.document_fault)
    if row.policy_revision is None and row.placed_revision is not None:
        raise UnreadableRow(
            f"its devices are placed by revision {row.placed_revision} of its policy, so it cannot follow its flat "
            "columns: set policy_revision again"
        )
    if row.document is not None:
        return policy_of(
            row.document,
            tenant_id=row.tenant_id,
            progress_timeout=settings.progress_timeout,
            device_timeout=settings.device_timeout,
            max_attempts=settings.max_attempts,
        )
    return read_policy(
        tenant_id=row.tenant_id,
        threshold=row.threshold,
        min_completed=row.min_completed,
        rate=row.rate,
        max_in_flight=row.max_in_flight,
        progress_timeout=own(row.progress_timeout, settings.progress_timeout),
        answer_timeout=row.answer_timeout,
        device_timeout=own(row.device_timeout, settings.device_timeout),
        max_attempts=own(row.max_attempts, settings.max_attempts),
        retry_on=row.retry_on,
        retry_delay=row.retry_delay,
        retry_delay_max=row.retry_delay_max,
        strategy=row.strategy,
        canary_percent=row.canary_percent,
    )


def _default(settings: Settings) -> Policy:
    return Policy(
        Guardrail(1.0),
        rate=1,
        max_in_flight=None,
        progress_timeout=settings.progress_timeout,
        answer_timeout=settings.progress_timeout,
        device_timeout=settings.device_timeout,
        retry=RetryPolicy(),
    )
