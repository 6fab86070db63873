"""Places the devices of a campaign under a policy document: into waves, segments and the order of their queue.

The creation of a campaign places small groups; workers place large ones, and those whose places an edit has changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.placing import MAX_SEGMENTS, Order, Placing, Survey, placing_of
from rollwave.domain.policy_events import CampaignPlaced
from rollwave.engine import guardrail_changes, stop
from rollwave.engine.stop import Stopped
from rollwave.errors import Conflict, InvalidInput
from rollwave.store import broad_selectors, budgets, campaigns, cells, events, labels, placing, placing_progress, waves
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection
from rollwave.store.placing import Batch
from rollwave.store.placing_statements import Source
from rollwave.store.segment_quarantine import SegmentChanges


@dataclass(frozen=True, slots=True)
class SentMoved:
    """The result of a batch of :func:`move_sent`. ``up_to``: its last device; None: there is no further batch.

    ``too_many``: the campaign has too many segments, so nothing more is placed. ``stopped``: it was paused for that.
    """

    up_to: str | None
    too_many: bool = False
    stopped: Stopped | None = None


async def survey_group(connection: Connection, source: Source, document: PolicyDocument) -> Survey:
    """Count the devices of a group that a document would place.

    Raises:
        InvalidInput: they would make too many segments, or a selector is too broad.
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    return await count(connection, source, placing_of(document))


async def count(connection: Connection, source: Source, of: Placing) -> Survey:
    """As :func:`survey_group`, for devices of any source, and what of a document decides where they stand."""
    await broad_selectors.refuse(connection, source, of)
    found = await placing.survey(connection, source, of)
    if found.segments > MAX_SEGMENTS:
        raise InvalidInput(too_many(found.segments), field="policy")
    return found


def too_many(segments: int) -> str:
    """The error for labels that split a campaign into too many segments."""
    return (
        f"the labels that windows and guardrails mention split the devices into {segments:,} segments, "
        f"and at most {MAX_SEGMENTS:,} are possible"
    )


async def survey_unsent(connection: Connection, campaign: Campaign, document: PolicyDocument) -> Survey:
    """Count the devices of a campaign that were never sent to. Reads all of them, without the campaign's lock."""
    source, sent = await source_of(connection, campaign), await _sent(connection, campaign, document)
    return await placing.survey(connection, source, placing_of(document), sent=sent)


async def move_sent(connection: Connection, ref: CampaignRef, began: str, *, after: str, limit: int) -> SentMoved:
    """Give devices that were sent to, and may be again, the segments of their labels, and the labels of budgets.

    ``limit`` rows are read, after the device ``after``. Locks executions first, then the campaign, as reports do.
    Not applied: the placing that ``began`` then is over, or has begun anew; or its devices are counted already.
    """
    campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
    locked = await placing.lock_sent(connection, campaign, after=after, limit=limit)
    campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
    document = campaign.document
    if document is None or campaign.survey is not None or campaign.placing_began != began:
        return SentMoved(None)
    if locked.devices:
        source = await source_of(connection, campaign)
        segments, changes = await placing.move_sent(connection, source, placing_of(document), locked.devices)
        if segments > MAX_SEGMENTS:
            stopped = await stop.pause(connection, campaign, too_many(segments))
            return SentMoved(None, too_many=True, stopped=stopped)
        await guardrail_changes.keep_quarantine(connection, campaign, changes)
    return SentMoved(locked.up_to if locked.scanned == limit else None)


async def begin(connection: Connection, campaign: Campaign, document: PolicyDocument) -> None:
    """Begin to place the campaign's devices by ``document``, which is in force. Needs the campaign's lock.

    The first wave is the current one again, unless the waves up to the current one keep their names: otherwise devices
    would be sent to whose gate nobody has judged.

    Raises:
        Conflict: devices were sent to in waves that the document does not have (:func:`has_waves_sent_to`).
    """
    if not has_waves_sent_to(campaign, document):
        raise Conflict(other_waves(campaign), hint=OTHER_WAVES_HINT)
    await placing_progress.begin(connection, campaign, waves_anew=not _keeps_waves(campaign, document))


def has_waves_sent_to(campaign: Campaign, document: PolicyDocument) -> bool:
    """Whether no device was sent to, or a document has the waves up to the current one, by their names.

    Otherwise devices that were sent to would count in waves that they were not chosen for, and open their gates.
    """
    return not campaign.sent or _keeps_waves(campaign, document) or (campaign.wave == 0 and not document.waves)


def _keeps_waves(campaign: Campaign, document: PolicyDocument) -> bool:
    known, upto = [each.name for each in waves.of(campaign)], campaign.wave + 1
    return campaign.placed_revision is not None and known[:upto] == list(placing_of(document).names[:upto])


def other_waves(campaign: Campaign) -> str:
    """Why a revision that other SQL has put in force is not followed."""
    return f"revision {campaign.policy_revision} has other waves than those in which devices were sent to"


OTHER_WAVES_HINT = "Put the earlier revision in force again, or edit the policy so that it has these waves."


async def follow(connection: Connection, campaign: Campaign, document: PolicyDocument) -> None:
    """Begin to place the campaign's devices by ``document``, since other SQL has put it in force.

    Its guardrails begin anew: nobody has compared them with the earlier ones. Needs the campaign's lock.
    """
    if campaign.sent or campaign.placed_revision is not None:  # otherwise no test has begun
        revision = campaign.policy_revision or 0
        await guardrail_changes.replace_document(connection, campaign, None, document, revision=revision)
    await begin(connection, campaign, document)


async def forget(connection: Connection, campaign: Campaign, *, limit: int) -> bool:
    """Forget which devices budgets hold, ``limit`` at a time, before the first is placed anew. Returns whether done."""
    if campaign.targeted_up_to or campaign.filled or not moves(campaign):
        return True
    return await budgets.forget_held(connection, campaign, limit=limit)


async def place_next(
    connection: Connection, campaign: Campaign, document: PolicyDocument, found: Survey, *, limit: int
) -> Batch:
    """Place the campaign's next devices: the last ones if fewer than ``limit`` were read. Needs the campaign's lock."""
    if campaign.filled:
        return Batch(0, None, 0, 0, 0, SegmentChanges())
    source, of, after = await source_of(connection, campaign), placing_of(document), campaign.targeted_up_to or ""
    if source.group_id is None:
        return await placing.move(connection, source, of, found, after=after, limit=limit)
    before = campaign.targeted_devices or 0
    return await placing.insert(connection, source, of, found, after=after, limit=limit, before=before)


async def begin_if_needed(
    connection: Connection, campaign: Campaign, document: PolicyDocument, *, progress_timeout: float
) -> bool:
    """Begin to place all devices if other SQL has made that necessary. Returns whether it did.

    It has put ``document`` in force, or inserted devices that can only be placed together with all others: the order
    of a label has to be made anew. Needs the campaign's lock.
    """
    if campaign.must_be_placed:
        await follow(connection, campaign, document)
        await campaigns.give_time(connection, campaign, progress_timeout)  # it may open windows
        return True
    alone = placing_of(document).order is not Order.LABEL and bool(waves.of(campaign))
    if alone or not (await placing_progress.unplaced(connection, campaign)).waiting:
        return False
    await begin(connection, campaign, document)
    return True


async def place_inserted(connection: Connection, campaign: Campaign, document: PolicyDocument, *, limit: int) -> Batch:
    """Place devices that have no place since all were placed: a batch of them. The others keep their places.

    Other SQL has inserted them, or a retry has put them in flight. Needs the campaign's lock.
    """
    batch = await _place_unplaced(connection, campaign, document, in_flight=False, limit=limit)
    if batch.devices == limit or not (await placing_progress.unplaced(connection, campaign)).in_flight:
        return batch
    return await _place_unplaced(connection, campaign, document, in_flight=True, limit=limit)


async def _place_unplaced(
    connection: Connection, campaign: Campaign, document: PolicyDocument, *, in_flight: bool, limit: int
) -> Batch:
    of, counted = placing_of(document), await cells.counts(connection, campaign)
    taken = [counted[number].size if number in counted else 0 for number in range(len(of.waves))]
    source = Source(
        campaign.tenant_id, campaign.id, None, campaign.firmware_device_type, await labels.source(connection)
    )
    room = Survey.of_room(of, taken)
    batch = await placing.place_inserted(connection, source, of, room, in_flight=in_flight, limit=limit)
    await placing_progress.note_inserted(connection, campaign, batch)
    await waves.grow(connection, campaign)
    await guardrail_changes.keep_quarantine(connection, campaign, batch.changes)
    return batch


async def finish(connection: Connection, tenant_id: str, campaign_id: CampaignId, of: Placing, found: Survey) -> None:
    """Write the campaign's waves: all devices are placed. Needs the campaign's lock."""
    await waves.write(connection, tenant_id, campaign_id, names=of.names, matched=found.matched)
    await budgets.begin(connection, tenant_id, campaign_id)
    await placing_progress.finish(connection, tenant_id, campaign_id)


async def record_placed(connection: Connection, campaign: Campaign, *, actor: str) -> None:
    """Write to history that the devices have places by the document in force."""
    waiting = sum(each.waiting for each in (await cells.counts(connection, campaign)).values())
    placed = CampaignPlaced(waiting, campaign.policy_revision or 0)
    await events.append(connection, campaign.tenant_id, campaign.id, placed, actor=actor)


async def source_of(connection: Connection, campaign: Campaign) -> Source:
    """The devices that are being placed: the members of the group, or those that the campaign never sent to."""
    group_id = None if moves(campaign) else campaign.target_group_id or ""
    of = await labels.source(connection)
    return Source(campaign.tenant_id, campaign.id, group_id, campaign.firmware_device_type, of)


def moves(campaign: Campaign) -> bool:
    """Whether executions are being placed that exist, and not members of the group."""
    return bool(campaign.placement and campaign.placement.get("moves"))


async def _sent(connection: Connection, campaign: Campaign, document: PolicyDocument) -> list[int]:
    counted = await cells.counts(connection, campaign)
    return [
        counted[number].size - counted[number].waiting if number in counted else 0
        for number in range(max(1, len(document.waves)))
    ]
