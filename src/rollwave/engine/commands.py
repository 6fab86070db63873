"""What an operator may ask of a campaign. Each is one transaction: load, decide by the table, save."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import asyncpg

from rollwave.domain.campaign import Action, CampaignStatus
from rollwave.domain.events import CampaignCreated
from rollwave.domain.ids import CampaignId
from rollwave.engine.stop import MAX_SKIPPED_WITH_THE_STOP, SKIPPED_BECAUSE
from rollwave.errors import Conflict
from rollwave.store import campaigns, events, executions, idempotency, targets
from rollwave.store.campaigns import SCAN_TIMEOUT_SECONDS
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.refusals import Written, fields, refusing
from rollwave.store.targets import MAX_DEVICES_PER_BATCH


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a campaign is asked to be. Times are seconds; None takes the engine's settings."""

    name: str
    firmware_version_id: int
    target_group_id: str
    rollout_strategy: str = "linear"
    rollout_rate: int = 10
    abort_threshold: float = 0.1
    abort_min_completed: int = 1
    canary_percent: float = 5.0
    max_in_flight: int | None = None
    progress_timeout: float | None = None
    answer_timeout: float | None = None
    device_timeout: float | None = None
    max_attempts: int | None = None
    retry_on: list[str] | None = None
    retry_delay: float | None = None
    retry_delay_max: float | None = None

    def digest(self) -> str:
        """The same for the same request, whatever it is called by."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


async def create_campaign(
    pool: Pool,
    tenant_id: str,
    new: NewCampaign,
    *,
    actor: str,
    idempotency_key: str | None = None,
    at_once: int = MAX_DEVICES_PER_BATCH,
) -> CampaignId:
    """Write down a campaign and, of its devices, the first ``at_once``, in one transaction; returns its id.

    The workers target the rest, as :mod:`rollwave.engine.upkeep.targeting` tells.

    Raises:
        NotFound: the tenant has no such firmware or group.
        InvalidInput: a column of the host's own table does not hold a value.
        Conflict: no device to send to, the idempotency key was used for another request, or the host's own table
            refuses the campaign.
    """
    written = fields("ota_campaigns", **asdict(new))
    written.append(Written("ota_campaigns", "created_by", [actor]))
    async with refusing(pool, written):
        try:
            return await _create(pool, tenant_id, new, actor=actor, idempotency_key=idempotency_key, at_once=at_once)
        except asyncpg.DataError:  # of a value of the campaign, or of a member that is to be in it
            async with tenant_transaction(pool, tenant_id) as connection:
                members = await targets.first_members(connection, tenant_id, new.target_group_id, limit=at_once)
            written.append(Written("ota_device_status", "device_id", members, quoted=True))
            raise


async def _create(
    pool: Pool, tenant_id: str, new: NewCampaign, *, actor: str, idempotency_key: str | None, at_once: int
) -> CampaignId:
    try:
        # A large group is counted, and one of which nothing fits the firmware is looked through.
        async with tenant_transaction(pool, tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
            return await _insert(
                connection, tenant_id, new, actor=actor, idempotency_key=idempotency_key, at_once=at_once
            )
    except (asyncpg.UniqueViolationError, asyncpg.ExclusionViolationError):
        # Another request may have committed just now: one with this key, which may have met a key of the host's first.
        if idempotency_key is None:
            raise
        async with tenant_transaction(pool, tenant_id) as connection:
            earlier = await idempotency.get(connection, tenant_id, idempotency_key)
        if earlier is None:
            raise
        return _same_request(earlier, new)
    except asyncpg.ForeignKeyViolationError:
        async with tenant_transaction(pool, tenant_id) as connection:  # the firmware may have been deleted just now
            await campaigns.firmware_device_type(connection, tenant_id, new.firmware_version_id)
        raise


async def _insert(
    connection: Connection, tenant_id: str, new: NewCampaign, *, actor: str, idempotency_key: str | None, at_once: int
) -> CampaignId:
    if idempotency_key is not None:
        earlier = await idempotency.get(connection, tenant_id, idempotency_key)
        if earlier is not None:
            return _same_request(earlier, new)
    device_type = await campaigns.firmware_device_type(connection, tenant_id, new.firmware_version_id)
    await campaigns.require_group(connection, tenant_id, new.target_group_id)
    campaign_id = await campaigns.insert(
        connection,
        tenant_id,
        new.name,
        new.firmware_version_id,
        new.target_group_id,
        new.rollout_strategy,
        new.rollout_rate,
        new.abort_threshold,
        new.abort_min_completed,
        new.canary_percent,
        new.max_in_flight,
        new.progress_timeout,
        new.answer_timeout,
        new.device_timeout,
        new.max_attempts,
        new.retry_on,
        new.retry_delay,
        new.retry_delay_max,
        actor,
    )
    if idempotency_key is not None:
        await idempotency.keep(connection, tenant_id, idempotency_key, new.digest(), campaign_id)
    await _target_first(
        connection, tenant_id, campaign_id, new.target_group_id, device_type, at_once=at_once, actor=actor
    )
    return campaign_id


async def _target_first(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    group_id: str,
    device_type: str | None,
    *,
    at_once: int,
    actor: str,
) -> None:
    """Target the campaign's first devices. ``device_type`` of the firmware, None: any."""
    first = await targets.insert(connection, tenant_id, campaign_id, group_id, device_type, limit=at_once)
    there_may_be_more = first.up_to is not None and first.devices == at_once
    fits = first.pending or (
        there_may_be_more
        and await targets.fits_another(connection, tenant_id, group_id, device_type, after=first.up_to or "")
    )
    if not fits:
        raise Conflict(
            f"group {group_id} has no device that this firmware fits",
            hint="Add devices to the group, or choose firmware of their device type.",
        )
    members = await targets.count_members(connection, tenant_id, group_id) if there_may_be_more else first.devices
    await targets.begin(connection, tenant_id, campaign_id, first, members=max(members, first.devices))
    await events.append(connection, tenant_id, campaign_id, CampaignCreated(members), actor=actor)


def _same_request(earlier: tuple[CampaignId, str], new: NewCampaign) -> CampaignId:
    campaign_id, digest = earlier
    if digest != new.digest():
        raise Conflict("this idempotency key was used for another request", hint="Use a new key for a new campaign.")
    return campaign_id


async def start_campaign(pool: Pool, tenant_id: str, campaign_id: int, *, actor: str) -> CampaignStatus:
    """Run a campaign that is CREATED or PAUSED; asked twice, the answer is the same.

    Raises:
        NotFound, Conflict
    """
    return await _move(pool, tenant_id, campaign_id, Action.START, actor=actor)


async def pause_campaign(pool: Pool, tenant_id: str, campaign_id: int, *, actor: str) -> CampaignStatus:
    """Send nothing more for now; reports are still taken.

    Raises:
        NotFound, Conflict
    """
    return await _move(pool, tenant_id, campaign_id, Action.PAUSE, actor=actor, words="paused by an operator")


async def abort_campaign(
    pool: Pool, tenant_id: str, campaign_id: int, *, actor: str, reason: str | None = None
) -> CampaignStatus:
    """Stop for good. Devices never sent to are skipped: a thousand at once, more by the workers, in batches.

    Raises:
        NotFound, Conflict
        InvalidInput: the column of the host's own table does not hold the reason.
    """
    words = "aborted by an operator"
    return await _move(pool, tenant_id, campaign_id, Action.ABORT, actor=actor, words=words, reason=reason)


async def _move(
    pool: Pool,
    tenant_id: str,
    campaign_id: int,
    action: Action,
    *,
    actor: str,
    words: str | None = None,
    reason: str | None = None,
) -> CampaignStatus:
    """``reason`` is the operator's; ``words`` are ours, where there is none."""
    written = [Written("ota_campaigns", "status_reason", [reason], "reason")]
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        campaign = await campaigns.lock(connection, tenant_id, campaign_id)
        status = await campaigns.move(
            connection,
            campaign,
            action,
            tenant_id=tenant_id,
            actor=actor,
            reason=reason or words,
            cut=not reason,
        )
        if status is CampaignStatus.ABORTED and campaign.status is not status:
            await executions.skip_unsent(
                connection,
                tenant_id,
                campaign.id,
                limit=MAX_SKIPPED_WITH_THE_STOP,
                reason=SKIPPED_BECAUSE,
            )
        return status
