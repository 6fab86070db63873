"""Opens the gate of a campaign's present wave by hand, whatever it still waits for."""

from __future__ import annotations

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.events import ENGINE, WaveOpened
from rollwave.domain.ids import CampaignId, TenantId
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy_events import WavePromoted
from rollwave.domain.role import Role
from rollwave.engine.locked_campaign import lock_campaign
from rollwave.engine.queue_facts import PresentWave, read_wave
from rollwave.errors import Conflict, Forbidden, NotFound
from rollwave.settings import Settings
from rollwave.store import campaigns, events, policies, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction


async def promote_wave(
    pool: Pool,
    settings: Settings,
    tenant_id: str,
    campaign_id: int,
    name: str,
    *,
    actor: str,
    role: Role,
    reason: str | None = None,
) -> CampaignStatus:
    """Open the gate of the wave ``name`` now. What it still waited for is written to history.

    The last wave has no gate. If its selector matches no device, it is passed, so that the campaign can end. A paused
    campaign stays paused. Promoting the same wave again changes nothing.

    Raises:
        NotFound: the tenant has no such campaign, or its policy no such wave.
        Conflict: the wave is not the present one, or is the last and its selector matches devices; the campaign has not
            been started, has ended, has no policy document, or its devices are being placed.
        Forbidden: the gate asks for an approval, and the key has not the role approver, or has created the campaign or
            edited its policy last.
    """
    ref = CampaignRef(TenantId(tenant_id), CampaignId(campaign_id), CampaignStatus.RUNNING)
    async with tenant_transaction(pool, tenant_id) as connection:
        locked = await lock_campaign(connection, ref, settings)
        campaign, document = locked.row, locked.policy.document
        if document is None:
            raise Conflict(f"campaign {campaign_id} has no policy document, so its waves have no gates")
        rows = waves.of(campaign)
        row = next((each for each in rows if each.name == name), None)
        if row is None:
            hint = f"Its waves are {', '.join(each.name for each in rows)}." if rows else "It is being targeted."
            raise NotFound(f"campaign {campaign_id} has no wave {name}", hint=hint)
        if row.promoted_by is not None and (row.number < campaign.wave or row.number == rows[-1].number):
            return campaign.status  # asked again
        if campaign.being_targeted or campaign.must_be_placed:
            hint = "Try again when *waiting* no longer names the gate targeting."
            raise Conflict(f"the devices of campaign {campaign_id} are being placed", hint=hint)
        wave = await read_wave(connection, locked, document)
        if wave is None or wave.row.number != row.number or campaign.status not in _OPEN:
            raise Conflict(
                f"wave {name} of campaign {campaign_id} is not the present one of a started campaign",
                hint=f"The present wave is {wave.row.name}." if wave else "",
            )
        if wave.last and not row.matches_nothing:
            raise Conflict(f"wave {name} is the last, so there is no gate to open")
        await _require_approval(connection, campaign, document, wave, actor=actor, role=role)
        await _open(connection, campaign, document, wave, actor=actor, reason=reason)
        return campaign.status


_OPEN = frozenset({CampaignStatus.RUNNING, CampaignStatus.PAUSED})


async def _require_approval(
    connection: Connection, campaign: Campaign, document: PolicyDocument, wave: PresentWave, *, actor: str, role: Role
) -> None:
    gate = document.waves[wave.row.number].gate
    if gate is None or not gate.approval:
        return
    if not role.covers(Role.APPROVER):
        raise Forbidden(f"wave {wave.row.name} asks for an approval", hint="Use a key with the role approver.")
    if actor in await policies.authors(connection, campaign.tenant_id, campaign.id):
        raise Forbidden(
            "the key that created the campaign or edited its policy last cannot approve its waves",
            hint="Use another key with the role approver.",
        )


async def _open(
    connection: Connection,
    campaign: Campaign,
    document: PolicyDocument,
    wave: PresentWave,
    *,
    actor: str,
    reason: str | None,
) -> None:
    number = wave.row.number
    await waves.promote(connection, campaign, number, by=actor)
    lacking = None if wave.decision.opens else wave.decision.lacking or None
    if wave.row.matches_nothing:
        lacking = f"the selector of wave {wave.row.name} matches no device"
    promoted = WavePromoted(number, wave.row.name, reason, lacking)
    await events.append(connection, campaign.tenant_id, campaign.id, promoted, actor=actor)
    if not wave.last:
        await waves.open_next(connection, campaign, number)  # the campaign is locked, so it is applied
        following = document.waves[number + 1].name
        opened = WaveOpened(number + 1, campaign.succeeded, campaign.failed, following, wave.row.name)
        await events.append(connection, campaign.tenant_id, campaign.id, opened, actor=ENGINE)
    await campaigns.wake(connection, campaign.tenant_id)
