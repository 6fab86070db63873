"""Targets the devices of a campaign: makes executions from the members of its group.

The first ``MAX_DEVICES_PER_BATCH`` devices are targeted in the transaction that creates the campaign
(``new_campaign``), which is enough for most groups. For a large group, workers target the others in batches, each in a
short transaction under the campaign's lock. Until the last batch the campaign is *being targeted*, and nothing else is
done for it.

Devices that are in the group throughout targeting are included exactly once. Devices that join or leave meanwhile may
or may not be. An abort ends targeting.

Under a policy document, each device also gets its wave, segment and position (:mod:`rollwave.engine.placing`). After an
edit that changes these, the devices never sent to are placed anew, in batches too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.events import ENGINE, CampaignTargeted
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.placing import MAX_SEGMENTS, placing_of
from rollwave.engine import budgets, guardrail_changes, placing, stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.placing import SentMoved
from rollwave.engine.stop import Stopped
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.log import get_logger, report
from rollwave.store import campaigns, events, placing_progress, targets
from rollwave.store.campaign_rows import Campaign
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.labels import LabelsUnavailable
from rollwave.store.targets import MAX_DEVICES_PER_BATCH, Targeted
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_log = get_logger("targeting")

HELD_SECONDS = 10.0
"""Seconds until devices are placed again whose labels could not be read."""


@dataclass(frozen=True, slots=True)
class _Step:
    """The result of one batch. ``wait``: seconds until the next look at the campaign; None: a batch may follow."""

    wait: float | None = None
    targeted: Targeted | None = None
    stopped: Stopped | None = None


class Targeter:
    """Targets the remaining devices of a campaign. Of several workers, one at a time does this."""

    def __init__(self, pool: Pool, *, batch: int = MAX_DEVICES_PER_BATCH) -> None:
        """``batch``: devices targeted in one transaction."""
        self._pool = pool
        self._batch = batch
        self._faults: dict[CampaignRef, str] = {}

    async def target(self, ref: CampaignRef) -> float:
        """Target the campaign for one turn. Returns the seconds until the next look; 0: immediately."""
        turn_ends = time.monotonic() + TURN_SECONDS
        wait = None
        while wait is None and time.monotonic() < turn_ends:
            try:
                wait = await self._target_batch(ref)
            except targets.DeviceLocked:
                wait = SOON_SECONDS
            except LabelsUnavailable as error:
                await self._hold(ref, error)
                wait = HELD_SECONDS
        return wait or 0.0

    async def place_inserted(self, ref: CampaignRef) -> None:
        """Place devices that other SQL has inserted into a campaign whose devices are placed: one batch of them.

        Sending to the others goes on meanwhile. If their labels cannot be read, they are left to the next look.
        """
        stopped = None
        try:
            async with targets.transaction(self._pool, ref.tenant_id) as connection:
                campaign = await targets.lock_or_skip(connection, ref.tenant_id, ref.campaign_id)
                if campaign is None or campaign.document is None or campaign.being_targeted or campaign.must_be_placed:
                    return
                batch = await placing.place_inserted(connection, campaign, campaign.document, limit=self._batch)
                if batch.segments > MAX_SEGMENTS:
                    stopped = await stop.pause(connection, campaign, placing.too_many(batch.segments))
            self._faults.pop(ref, None)
        except targets.DeviceLocked:
            return
        except LabelsUnavailable as error:
            if self._faults.get(ref) != str(error):
                self._faults[ref] = str(error)
                report(_log, "ota_targeting_held", error, campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
        if stopped:
            stopped.announce()

    async def _target_batch(self, ref: CampaignRef) -> float | None:
        """Target one batch. It is committed together with its last device, so no device is left out or targeted twice.

        Returns the seconds until the next look at the campaign; None: the next batch may follow now.
        """
        async with targets.transaction(self._pool, ref.tenant_id) as connection:
            campaign = await targets.lock_or_skip(connection, ref.tenant_id, ref.campaign_id)
            if campaign is None:
                return SOON_SECONDS  # another worker is targeting it
            step = await self._step(connection, campaign)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if step is None:
            return await self._survey(ref)
        if step.stopped:
            step.stopped.announce()
        if step.targeted:
            _log.info(
                "ota_campaign_targeted",
                campaign_id=campaign.id,
                tenant_id=campaign.tenant_id,
                devices=step.targeted.devices,
                seconds=step.targeted.seconds,
            )
        return step.wait

    async def _hold(self, ref: CampaignRef, error: LabelsUnavailable) -> None:
        """Store why the devices cannot be placed, which *waiting* shows, and log it once."""
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            campaign = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            is_new = await placing_progress.store_fault(connection, campaign, str(error))
        if is_new:
            report(_log, "ota_targeting_held", error, campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)

    async def _step(self, connection: Connection, campaign: Campaign) -> _Step | None:
        """One batch of a locked campaign. None: its devices must be counted first."""
        if not campaign.being_targeted:
            return _Step(wait=0.0)
        if campaign.policy_revision is None and campaign.placed_revision is None:
            return await self._insert(connection, campaign)
        if campaign.document is None:
            reason = campaign.document_fault or "its policy cannot be read"
            stopped = await stop.pause(connection, campaign, reason)
            return _Step(SOON_SECONDS, stopped=stopped)
        if campaign.must_be_placed:
            return await self._follow(connection, campaign, campaign.document)
        if campaign.survey is None:
            return None
        return await self._place(connection, campaign, campaign.document)

    async def _follow(self, connection: Connection, campaign: Campaign, document: PolicyDocument) -> _Step:
        """Other SQL has put another revision in force: place the devices by it.

        Members of the group are all targeted before, without a place. The look at the campaign then places them.
        """
        if not placing.moves(campaign):
            return await self._insert(connection, campaign)
        if not placing.has_waves_sent_to(campaign, document):
            reason = placing.other_waves(campaign)
            return _Step(
                SOON_SECONDS, stopped=await stop.pause(connection, campaign, reason, hint=placing.OTHER_WAVES_HINT)
            )
        await placing.follow(connection, campaign, document)
        return _Step()

    async def _insert(self, connection: Connection, campaign: Campaign) -> _Step:
        batch = await targets.insert(
            connection,
            campaign.tenant_id,
            campaign.id,
            campaign.target_group_id or "",
            campaign.firmware_device_type,
            after=campaign.targeted_up_to or "",
            limit=self._batch,
        )
        return await self._advance(connection, campaign, batch, last=batch.devices < self._batch)

    async def _advance(self, connection: Connection, campaign: Campaign, batch: targets.Batch, *, last: bool) -> _Step:
        targeted = await targets.advance(connection, campaign, batch, last=last)
        if not last:
            return _Step()
        event = CampaignTargeted(targeted.devices, round(targeted.seconds, 1))
        await events.append(connection, campaign.tenant_id, campaign.id, event, actor=ENGINE)
        return _Step(0.0, targeted)

    async def _place(self, connection: Connection, campaign: Campaign, document: PolicyDocument) -> _Step:
        """Place a batch by the campaign's document, after its devices were counted."""
        found, of = campaign.survey, placing_of(document)
        assert found is not None  # the caller checks this
        if not await placing.forget(connection, campaign, limit=self._batch):
            return _Step()
        batch = await placing.place_next(connection, campaign, document, found, limit=self._batch)
        last = batch.devices < self._batch
        if placing.moves(campaign):
            await guardrail_changes.keep_quarantine(connection, campaign, batch.changes)
        if batch.segments > MAX_SEGMENTS:
            stopped = await stop.pause(connection, campaign, placing.too_many(batch.segments))
            return _Step(SOON_SECONDS, stopped=stopped)
        last = last and await budgets.fill_queue(connection, campaign, document, limit=self._batch)
        if last:
            await placing.finish(connection, campaign.tenant_id, campaign.id, of, found)
        if not placing.moves(campaign):
            targeted = targets.Batch(batch.devices, batch.up_to, batch.pending, batch.skipped)
            return await self._advance(connection, campaign, targeted, last=last)
        await placing_progress.advance(connection, campaign, batch, last=last)
        if last:
            await placing.record_placed(connection, campaign, actor=ENGINE)
        return _Step(0.0 if last else None)

    async def _survey(self, ref: CampaignRef) -> float | None:
        """Move the devices that were sent to, and count those that an edit places anew.

        All rows are read without the campaign's lock. Returns as :meth:`_target_batch`. Given up: this placing is over,
        or has begun anew, also by another worker.
        """
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
        began = campaign.placing_began
        if began is not None and campaign.sent and not await self._move_sent(ref, began):
            return SOON_SECONDS
        async with tenant_transaction(self._pool, ref.tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            if campaign.document is None or campaign.survey is not None or campaign.placing_began != began:
                return None
            found = await placing.survey_unsent(connection, campaign, campaign.document)
            key, revision = (campaign.tenant_id, campaign.id), campaign.policy_revision
            await placing_progress.store_survey(connection, *key, found, revision=revision, began=began)
        return None

    async def _move_sent(self, ref: CampaignRef, began: str) -> bool:
        """Give devices that were sent to the segments of their labels, in batches. False: these are too many."""
        moved = SentMoved("")
        while moved.up_to is not None:
            async with tenant_transaction(self._pool, ref.tenant_id) as connection:
                moved = await placing.move_sent(connection, ref, began, after=moved.up_to, limit=self._batch)
        if moved.stopped:
            moved.stopped.announce()
        return not moved.too_many
