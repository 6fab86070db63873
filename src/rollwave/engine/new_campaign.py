"""Creation of a campaign: one transaction inserts it and targets its first devices. Workers target the others."""

from __future__ import annotations

from dataclasses import asdict, replace

from rollwave.domain.events import CampaignCreated
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.placing import placing_of
from rollwave.engine import budgets, placing, policies, policy_preview
from rollwave.engine.policy_preview import PolicyPreview
from rollwave.errors import Conflict, InvalidInput
from rollwave.settings import Settings
from rollwave.store import campaigns, events, labels, new_campaigns, placing_progress, targets
from rollwave.store import placing as places
from rollwave.store import policies as revisions
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.new_campaigns import EarlierRequest, NewCampaign
from rollwave.store.placing_statements import Source
from rollwave.store.rejected_values import Written, fields, refusing
from rollwave.store.targets import MAX_DEVICES_PER_BATCH
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS


async def create_campaign(
    pool: Pool,
    tenant_id: str,
    new: NewCampaign,
    *,
    actor: str,
    policy: PolicyDocument | str | None = None,
    idempotency_key: str | None = None,
    first_batch: int = MAX_DEVICES_PER_BATCH,
) -> CampaignId:
    """Create a campaign and target its first ``first_batch`` devices, in one transaction. Returns its id.

    Workers target the other devices (:mod:`rollwave.engine.upkeep.targeting`). ``policy``: the document that the
    campaign follows, or the name of a preset or of a stored policy, which is copied; None: the rules of ``new``.

    Raises:
        NotFound: the tenant has no such firmware or group.
        InvalidInput: a value does not fit a column of the host's own table; there is no policy of this name; the
            policy limits bytes, and the size of the firmware is not known.
        Conflict: no device to send to, the idempotency key was used for another request, or the host's own table
            refuses the campaign.
    """
    written = fields("ota_campaigns", **asdict(new))
    written.append(Written("ota_campaigns", "created_by", [actor]))

    async def members() -> Written:
        async with tenant_transaction(pool, tenant_id) as connection:
            first = await targets.first_members(connection, tenant_id, new.target_group_id, limit=first_batch)
        return Written("ota_device_status", "device_id", first, quoted=True)

    try:
        async with (
            refusing(pool, written, also=members),
            # A large group is counted. If no device of the first batch fits the firmware, the rest is searched for one.
            tenant_transaction(pool, tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection,
        ):
            return await _insert(
                connection,
                tenant_id,
                new,
                policy,
                actor=actor,
                idempotency_key=idempotency_key,
                first_batch=first_batch,
            )
    except Conflict:
        # A request with the same idempotency key may have committed in between, and a host's unique key refused ours.
        if idempotency_key is not None:
            async with tenant_transaction(pool, tenant_id) as connection:
                earlier = await new_campaigns.earlier_request(connection, tenant_id, idempotency_key)
            if earlier is not None:
                return _same_request(earlier, new.digest(policy))
        raise
    except InvalidInput as error:
        if error.field == "firmware_version_id":  # the firmware may have been deleted in between
            async with tenant_transaction(pool, tenant_id) as connection:
                await new_campaigns.chosen_firmware(connection, tenant_id, new.firmware_version_id)
        raise


async def _insert(
    connection: Connection,
    tenant_id: str,
    new: NewCampaign,
    policy: PolicyDocument | str | None,
    *,
    actor: str,
    idempotency_key: str | None,
    first_batch: int,
) -> CampaignId:
    if idempotency_key is not None:
        earlier = await new_campaigns.earlier_request(connection, tenant_id, idempotency_key)
        if earlier is not None:
            return _same_request(earlier, new.digest(policy))
    firmware = await new_campaigns.chosen_firmware(connection, tenant_id, new.firmware_version_id)
    await new_campaigns.require_group(connection, tenant_id, new.target_group_id)
    document = None
    if policy is None:
        campaign_id = await new_campaigns.insert(connection, tenant_id, new, created_by=actor)
    else:
        document = await policies.given(connection, tenant_id, policy)
        policies.require_firmware_size(document, firmware.size)
        campaign_id = await new_campaigns.insert(connection, tenant_id, new, created_by=actor, policy_revision=1)
        await revisions.insert(connection, tenant_id, campaign_id, document, number=1, actor=actor)
    if idempotency_key is not None:
        await new_campaigns.keep_key(connection, tenant_id, idempotency_key, new.digest(policy), campaign_id)
    if document is not None:
        group_id, of = new.target_group_id, await labels.source(connection)
        source = Source(tenant_id, campaign_id, group_id, firmware.device_type, of)
        await _place_first(connection, source, document, first_batch=first_batch, actor=actor)
        return campaign_id
    await _target_first(
        connection,
        tenant_id,
        campaign_id,
        new.target_group_id,
        firmware.device_type,
        first_batch=first_batch,
        actor=actor,
    )
    return campaign_id


async def _target_first(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    group_id: str,
    device_type: str | None,
    *,
    first_batch: int,
    actor: str,
) -> None:
    """Target the campaign's first devices. ``device_type``: the type that the firmware is for; None: every type."""
    first = await targets.insert(connection, tenant_id, campaign_id, group_id, device_type, limit=first_batch)
    there_may_be_more = first.up_to is not None and first.devices == first_batch
    fits = first.pending or (
        there_may_be_more
        and await targets.fits_another(connection, tenant_id, group_id, device_type, after=first.up_to or "")
    )
    if not fits:
        raise _no_device(group_id)
    members = await targets.count_members(connection, tenant_id, group_id) if there_may_be_more else first.devices
    await targets.begin(connection, tenant_id, campaign_id, first, members=max(members, first.devices))
    await events.append(connection, tenant_id, campaign_id, CampaignCreated(members), actor=actor)


async def _place_first(
    connection: Connection, source: Source, document: PolicyDocument, *, first_batch: int, actor: str
) -> None:
    """Target and place the campaign's first devices. All devices of the group are counted before."""
    tenant_id, campaign_id, group_id = source.tenant_id, source.campaign_id, source.group_id or ""
    found = await placing.survey_group(connection, source, document)
    if not found.targets:
        raise _no_device(group_id)
    of = placing_of(document)
    batch = await places.insert(connection, source, of, found, after="", limit=first_batch, before=0)
    members = batch.devices
    if batch.devices == first_batch:
        members = max(members, await targets.count_members(connection, tenant_id, group_id))
    first = targets.Batch(batch.devices, batch.up_to, batch.pending, batch.skipped)
    await targets.begin(connection, tenant_id, campaign_id, first, members=members)
    if members == batch.devices:
        if document.budgets:
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            await budgets.fill_queue(connection, campaign, document, limit=members + 1)
        await placing.finish(connection, tenant_id, campaign_id, of, found)
    else:
        await placing_progress.store_survey(connection, tenant_id, campaign_id, found, revision=1, began=None)
    await events.append(connection, tenant_id, campaign_id, CampaignCreated(members), actor=actor)


def _no_device(group_id: str) -> Conflict:
    return Conflict(
        f"group {group_id} has no device that this firmware fits",
        hint="Add devices to the group, or choose firmware of their device type.",
    )


def _same_request(earlier: EarlierRequest, digest: str) -> CampaignId:
    if earlier.digest != digest:
        raise Conflict("this idempotency key was used for another request", hint="Use a new key for a new campaign.")
    return earlier.campaign_id


async def preview_campaign(
    pool: Pool, settings: Settings, tenant_id: str, new: NewCampaign, *, policy: PolicyDocument | str | None = None
) -> PolicyPreview:
    """Check a campaign as :func:`create_campaign` does, and create nothing.

    Raises:
        NotFound: the tenant has no such firmware or group.
        InvalidInput: there is no policy of this name, or it limits bytes and the size of the firmware is not known.
        Conflict: no device to send to.
    """
    async with tenant_transaction(pool, tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
        firmware = await new_campaigns.chosen_firmware(connection, tenant_id, new.firmware_version_id)
        await new_campaigns.require_group(connection, tenant_id, new.target_group_id)
        if not await targets.fits_another(connection, tenant_id, new.target_group_id, firmware.device_type, after=""):
            raise _no_device(new.target_group_id)
        also_in = await new_campaigns.overlaps(connection, tenant_id, new.target_group_id)
        if policy is None:
            devices = await targets.count_members(connection, tenant_id, new.target_group_id)
            found = await policy_preview.preview_flat(connection, new, tenant_id, settings, devices=devices)
            return replace(found, also_in=also_in)
        document = await policies.given(connection, tenant_id, policy)
        policies.require_firmware_size(document, firmware.size)
        of = await labels.source(connection)
        source = Source(tenant_id, CampaignId(0), new.target_group_id, firmware.device_type, of)
        found = await policy_preview.preview(connection, settings, source, document)
        return replace(found, also_in=also_in)
