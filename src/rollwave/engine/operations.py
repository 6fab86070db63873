"""An operator's actions on a campaign. Each is one transaction: lock the row, check the transition table, write."""

from __future__ import annotations

from rollwave.domain.campaign import (
    ABORTED_BY_OPERATOR,
    CANCELLED_BY_OPERATOR,
    FINAL,
    PAUSED_BY_OPERATOR,
    Action,
    CampaignStatus,
)
from rollwave.domain.policy_events import SegmentReleased
from rollwave.domain.role import Role
from rollwave.engine import guardrail_changes
from rollwave.engine.approval import require_approver
from rollwave.engine.cancel import begin_cancel
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import skip_first
from rollwave.errors import Conflict, NotFound
from rollwave.settings import Settings
from rollwave.store import campaigns, events, segment_quarantine
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.rejected_values import Written, refusing


async def start_campaign(
    pool: Pool, tenant_id: str, campaign_id: int, *, actor: str, role: Role = Role.OPERATOR
) -> CampaignStatus:
    """Run a campaign that is CREATED or PAUSED. Starting it again changes nothing.

    ``role``: the actor's. A campaign whose policy ignores freezes is started by an approver.

    Raises:
        NotFound: the tenant has no such campaign.
        Conflict: the campaign has ended.
        Forbidden: its policy ignores freezes, and the actor is no approver.
    """
    return await _move(pool, tenant_id, campaign_id, Action.START, actor=actor, role=role)


async def release_segment(
    pool: Pool,
    settings: Settings,
    tenant_id: str,
    campaign_id: int,
    segment: int,
    *,
    actor: str,
    reason: str | None = None,
) -> CampaignStatus:
    """Release a segment from quarantine, so that its devices are sent to again. Returns the campaign's status.

    The guardrails that put it there begin a new test for it. A segment that is not in quarantine stays as it is.

    Raises:
        NotFound: the tenant has no such campaign, or the campaign has no segment of this number.
        Conflict: the campaign has ended.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        campaign = await campaigns.lock(connection, tenant_id, campaign_id)
        if not await segment_quarantine.exists(connection, campaign, segment):
            raise NotFound(
                f"campaign {campaign_id} has no segment {segment}", hint="List its segments to see their numbers."
            )
        if campaign.status in FINAL:
            raise Conflict(
                f"Cannot release segment {segment} of campaign {campaign_id}: it is {campaign.status}.",
                hint="COMPLETED and ABORTED are final; create a new campaign to go on.",
            )
        if await segment_quarantine.release(connection, campaign, segment):
            await guardrail_changes.begin_released_anew(connection, campaign, segment)
            await campaigns.give_time(connection, campaign, under_policy(campaign, settings).policy.progress_timeout)
            await campaigns.wake(connection, tenant_id)
            released = SegmentReleased(segment, reason)
            await events.append(connection, tenant_id, campaign.id, released, actor=actor)
        return campaign.status


async def pause_campaign(pool: Pool, tenant_id: str, campaign_id: int, *, actor: str) -> CampaignStatus:
    """Stop sending until the campaign is started again. Reports still count.

    Raises:
        NotFound: the tenant has no such campaign.
        Conflict: the campaign was never started, or has ended.
    """
    return await _move(pool, tenant_id, campaign_id, Action.PAUSE, actor=actor, words=PAUSED_BY_OPERATOR)


async def abort_campaign(
    pool: Pool, tenant_id: str, campaign_id: int, *, actor: str, reason: str | None = None
) -> CampaignStatus:
    """Stop the campaign for good. Up to a thousand unsent devices are skipped here, the others by workers in batches.

    Raises:
        NotFound: the tenant has no such campaign.
        Conflict: the campaign has completed.
        InvalidInput: the reason does not fit the column of the host's own table.
    """
    words = ABORTED_BY_OPERATOR
    return await _move(pool, tenant_id, campaign_id, Action.ABORT, actor=actor, words=words, reason=reason)


async def cancel_campaign(
    pool: Pool, tenant_id: str, campaign_id: int, *, actor: str, reason: str | None = None
) -> CampaignStatus:
    """Abort the campaign, and let workers tell its devices in progress. Cancelling it again changes nothing.

    Raises:
        NotFound: the tenant has no such campaign.
        Conflict: the campaign has completed.
        InvalidInput: the reason does not fit the column of the host's own table.
    """
    written = [Written("ota_campaigns", "status_reason", [reason], "reason")]
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        campaign = await campaigns.lock(connection, tenant_id, campaign_id)
        words = CANCELLED_BY_OPERATOR
        return await begin_cancel(connection, campaign, actor=actor, reason=reason or words, cut=not reason)


async def _move(
    pool: Pool,
    tenant_id: str,
    campaign_id: int,
    action: Action,
    *,
    actor: str,
    words: str | None = None,
    reason: str | None = None,
    role: Role = Role.OPERATOR,
) -> CampaignStatus:
    """Change the status. ``reason``: the operator's; ``words``: the engine's, used if the operator gave none."""
    written = [Written("ota_campaigns", "status_reason", [reason], "reason")]
    async with refusing(pool, written), tenant_transaction(pool, tenant_id) as connection:
        campaign = await campaigns.lock(connection, tenant_id, campaign_id)
        if action is Action.START and campaign.status in {CampaignStatus.CREATED, CampaignStatus.PAUSED}:
            require_approver(campaign.document, role)
        if action is Action.START and campaign.status is CampaignStatus.PAUSED:
            await guardrail_changes.begin_paused_anew(connection, campaign)
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
            await skip_first(connection, tenant_id, campaign.id)
        return status
