"""The policy of a campaign: reading it, checking a new one, and replacing it by a new revision."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from rollwave.domain.campaign import FINAL, CampaignRef, CampaignStatus
from rollwave.domain.policy import flat
from rollwave.domain.policy.document.emit import to_data
from rollwave.domain.policy.document.located import Located, Plain
from rollwave.domain.policy.document.model import PaceRule, PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, Problem, parse, validate
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.edits import check_edit
from rollwave.domain.policy.placing import placing_of
from rollwave.domain.policy.rules import own_times
from rollwave.domain.policy.time_gates import ignores_freezes
from rollwave.domain.policy_events import PolicyEdited
from rollwave.domain.role import Role
from rollwave.engine import guardrail_changes, placing
from rollwave.engine.approval import require_approver
from rollwave.engine.locked_campaign import CampaignUnderPolicy, lock_campaign, under_policy
from rollwave.engine.policy_preview import PolicyPreview, any_order, preview
from rollwave.errors import Conflict, InvalidInput, NotFound, Outdated
from rollwave.settings import Settings
from rollwave.store import campaigns, events, labels, policies, stored_policies
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.placing_statements import Source
from rollwave.store.rejected_values import refusing
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy as a campaign has it.

    ``data``: the document; if ``flat``, the campaign's flat columns as a document. ``revision``, ``by``, ``at`` and
    ``reason`` say who wrote it, when and why; None: it is flat, or other SQL wrote it. ``by_name``: of the key.
    """

    data: object
    flat: bool
    revision: int | None = None
    by: str | None = None
    at: datetime | None = None
    reason: str | None = None
    by_name: str | None = None

    @property
    def etag(self) -> str:
        """The entity tag, with its quotes."""
        if self.revision is not None:
            return f'"{self.revision}"'
        digest = hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()
        return f'"flat-{digest[:16]}"'


async def given(connection: Connection, tenant_id: str, policy: PolicyDocument | str) -> PolicyDocument:
    """The document that a request gives, or names.

    Raises:
        InvalidInput: there is no policy of this name, or it cannot be read.
    """
    if isinstance(policy, PolicyDocument):
        return policy
    try:
        return (await stored_policies.read(connection, tenant_id, policy)).document
    except (NotFound, Conflict) as error:
        raise InvalidInput(str(error), hint=error.hint, field="policy") from error


def require_firmware_size(document: PolicyDocument, size: object) -> None:
    """Check that the size of the firmware is known where the document limits bytes.

    Raises:
        InvalidPolicy: it is not.
    """
    limits = (document.pace or PaceRule()).bytes
    if limits is not None and limits.limits and not size:
        problem = Problem(
            ("pace", "bytes"), "the size of the firmware is not known", "register it with file_size_bytes"
        )
        raise InvalidPolicy([problem])


async def read_policy(
    pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, *, revision: int | None = None
) -> PolicyInForce:
    """The policy in force, or one ``revision`` of it.

    Raises:
        NotFound: the tenant has no such campaign, or the campaign no such revision.
        Conflict: the campaign's flat columns cannot be read.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        return await _in_force(connection, settings, campaign, revision)


async def _in_force(
    connection: Connection, settings: Settings, campaign: CampaignUnderPolicy, revision: int | None = None
) -> PolicyInForce:
    row = campaign.row
    wanted = row.policy_revision if revision is None else revision
    if wanted is not None:
        found = await policies.revision(connection, row.tenant_id, row.id, wanted)
        same = wanted == row.policy_revision and row.document is not None
        data = to_data(row.document) if same and row.document is not None else _canonical(found.data)
        return PolicyInForce(data, False, found.number, found.by, found.at, found.reason, found.by_name)
    if campaign.unreadable is not None:
        raise Conflict(f"the policy of campaign {row.id} cannot be read: {campaign.unreadable}")
    return PolicyInForce(flat.as_document(campaign.policy, tick=settings.tick_interval), flat=True)


def _canonical(data: Plain) -> object:
    """The data of a revision as the format has it; as it is stored, where a host's SQL wrote what cannot be read."""
    try:
        return to_data(validate(Located(data)))
    except InvalidPolicy:
        return data


@dataclass(frozen=True, slots=True)
class Edit:
    """A document that replaces a campaign's policy. ``if_match``: the entity tags that may be replaced; None: any."""

    text: bytes
    form: Format
    reason: str | None = None
    if_match: str | None = None

    def require_match(self, present: PolicyInForce) -> None:
        """Raise Outdated if the policy is not one of those that the author knows."""
        known = None if self.if_match is None else {each.strip() for each in self.if_match.split(",")}
        if known is not None and not known & {"*", present.etag, f"W/{present.etag}"}:
            raise Outdated(
                f"the policy was changed: its entity tag is {present.etag}", hint="Read it again, then repeat the edit."
            )


async def preview_edit(pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, edit: Edit) -> PolicyPreview:
    """Check an edit as :func:`edit_policy` does, and change nothing.

    Raises:
        NotFound, Outdated, InvalidInput, Conflict: as :func:`edit_policy`.
    """
    campaign, document = await _read(pool, settings, tenant_id, campaign_id, edit)
    _check(campaign, document)
    row = campaign.row
    async with tenant_transaction(pool, tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
        return await preview(connection, settings, await _source(connection, row), document)


async def _source(connection: Connection, row: Campaign) -> Source:
    """The devices that an edit of the campaign's policy would place."""
    return Source(row.tenant_id, row.id, None, row.firmware_device_type, await labels.source(connection))


async def _read(
    pool: Pool, settings: Settings, tenant_id: str, campaign_id: int, edit: Edit
) -> tuple[CampaignUnderPolicy, PolicyDocument]:
    """The campaign, unlocked, and the document of an edit whose entity tag matches."""
    async with tenant_transaction(pool, tenant_id) as connection:
        campaign = under_policy(await campaigns.get(connection, tenant_id, campaign_id), settings)
        edit.require_match(await _present(connection, settings, campaign))
    # In a thread, and without a transaction: reading the largest documents takes half a second.
    return campaign, await asyncio.to_thread(parse, edit.text, edit.form)


async def edit_policy(
    pool: Pool,
    settings: Settings,
    tenant_id: str,
    campaign_id: int,
    edit: Edit,
    *,
    actor: str,
    role: Role = Role.OPERATOR,
) -> PolicyInForce:
    """Replace a campaign's policy by a new revision, which is in force at the next claim. ``role``: the actor's.

    Raises:
        Forbidden: the campaign is running, the document ignores freezes, and the actor is no approver.
        NotFound: the tenant has no such campaign.
        Outdated: the policy is not one that the author knows.
        InvalidInput: the document breaks a rule, splits the devices into too many segments, or has selectors that
            are too broad.
        Conflict: the campaign has ended, a wave that was sent to would be gone, or the campaign was started with its
            flat columns.
    """
    campaign, document = await _read(pool, settings, tenant_id, campaign_id, edit)
    _check(campaign, document)
    of = placing_of(document)
    if (of.splits or any(of.selects)) and _moves_devices(campaign.row, document):
        async with tenant_transaction(pool, tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
            source = await _source(connection, campaign.row)
            await placing.count(connection, source, any_order(document))
    async with refusing(pool), tenant_transaction(pool, tenant_id) as connection:
        ref = CampaignRef(campaign.row.tenant_id, campaign.row.id, campaign.row.status)
        campaign = await lock_campaign(connection, ref, settings)
        edit.require_match(await _present(connection, settings, campaign))
        _check(campaign, document)
        if campaign.row.status is CampaignStatus.RUNNING and not ignores_freezes(campaign.row.document):
            require_approver(document, role)
        number = await policies.last_revision(connection, tenant_id, campaign_id) + 1
        await policies.insert(
            connection, tenant_id, campaign_id, document, number=number, actor=actor, reason=edit.reason
        )
        before = campaign.row.policy_revision
        if not await policies.put_in_force(connection, tenant_id, campaign_id, number, before=before):
            raise Conflict(f"campaign {campaign_id} changed meanwhile", hint="Look at it again, then repeat.")
        # No guardrail has followed a revision of other SQL by which no device is placed.
        followed = None if campaign.row.must_be_placed else campaign.row.document
        await guardrail_changes.replace_document(connection, campaign.row, followed, document, revision=number)
        if _moves_devices(campaign.row, document):
            await placing.begin(connection, campaign.row, document)
        progress_timeout = own_times(document).progress_timeout or settings.progress_timeout
        await campaigns.give_time(connection, campaign.row, progress_timeout)  # it may open windows
        await campaigns.wake(connection, tenant_id)
        await events.append(connection, tenant_id, campaign_id, PolicyEdited(edit.reason, number), actor=actor)
    return await read_policy(pool, settings, tenant_id, campaign_id, revision=number)


async def _present(connection: Connection, settings: Settings, campaign: CampaignUnderPolicy) -> PolicyInForce:
    """The policy in force, also where it cannot be read: an edit is how it is repaired."""
    try:
        return await _in_force(connection, settings, campaign)
    except (NotFound, Conflict):
        return PolicyInForce(campaign.unreadable, flat=campaign.row.policy_revision is None)


def _moves_devices(row: Campaign, document: PolicyDocument) -> bool:
    """Whether the document changes the places of devices. Raises Conflict if they are still being targeted."""
    stands = row.document is not None and not row.must_be_placed
    if stands and row.document is not None and placing_of(row.document) == placing_of(document):
        return False
    if row.being_targeted and not (row.placement or {}).get("moves"):
        raise Conflict(
            f"the devices of campaign {row.id} are still being targeted, so its waves and labels cannot change yet",
            hint="Repeat the edit when targeted_devices is null.",
        )
    return True


def _check(campaign: CampaignUnderPolicy, document: PolicyDocument) -> None:
    row = campaign.row
    if row.status in FINAL:
        raise Conflict(f"Cannot edit the policy of campaign {row.id}: it is {row.status}.")
    if row.policy_revision is None and row.status is not CampaignStatus.CREATED:
        raise Conflict(
            f"campaign {row.id} was started with its flat columns, and cannot change to a policy document",
            hint="Change its columns, or create a new campaign with a policy.",
        )
    require_firmware_size(document, row.firmware_size)
    _moves_devices(row, document)
    if row.document is not None:
        began = row.wave if row.sent or row.wave else None
        check_edit(row.document, document, current_wave=began, command_is_frozen=row.command is not None)
