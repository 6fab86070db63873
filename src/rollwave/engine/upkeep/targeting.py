"""Targets the devices of a campaign: makes executions from the members of its group.

The first ``MAX_DEVICES_PER_BATCH`` devices are targeted in the transaction that creates the campaign (``commands``),
which is enough for most groups. For a large group, workers target the others in batches, each in a short transaction
under the campaign's lock. Until the last batch the campaign is *being targeted*, and nothing else is done for it.

Devices that are in the group throughout targeting are included exactly once. Devices that join or leave meanwhile may
or may not be. An abort ends targeting.
"""

from __future__ import annotations

import time

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.events import ENGINE, CampaignTargeted
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.log import get_logger
from rollwave.store import events, targets
from rollwave.store.database import Pool
from rollwave.store.targets import MAX_DEVICES_PER_BATCH

_log = get_logger("targeting")


class Targeter:
    """Targets the remaining devices of a campaign. Of several workers, one at a time does this."""

    def __init__(self, pool: Pool, *, batch: int = MAX_DEVICES_PER_BATCH) -> None:
        """``batch``: devices targeted in one transaction."""
        self._pool = pool
        self._batch = batch

    async def target(self, ref: CampaignRef) -> float:
        """Target the campaign for one turn. Returns the seconds until the next look; 0: immediately."""
        turn_ends = time.monotonic() + TURN_SECONDS
        wait = None
        while wait is None and time.monotonic() < turn_ends:
            try:
                wait = await self._target_batch(ref)
            except targets.DeviceLocked:
                wait = SOON_SECONDS
        return wait or 0.0

    async def _target_batch(self, ref: CampaignRef) -> float | None:
        """Target one batch. It is committed together with its last device, so no device is left out or targeted twice.

        Returns the seconds until the next look at the campaign; None: the next batch may follow now.
        """
        async with targets.transaction(self._pool, ref.tenant_id) as connection:
            campaign = await targets.lock_or_skip(connection, ref.tenant_id, ref.campaign_id)
            if campaign is None:
                return SOON_SECONDS  # another worker is targeting it
            if not campaign.being_targeted:
                return 0.0
            batch = await targets.insert(
                connection,
                campaign.tenant_id,
                campaign.id,
                campaign.target_group_id or "",
                campaign.firmware_device_type,
                after=campaign.targeted_up_to or "",
                limit=self._batch,
            )
            last = batch.devices < self._batch
            total, seconds = await targets.advance(connection, campaign, batch, last=last)
            if last:
                targeted = CampaignTargeted(total, round(seconds, 1))
                await events.append(connection, campaign.tenant_id, campaign.id, targeted, actor=ENGINE)
            await reach(Failpoint.CAMPAIGN_WRITTEN)
        if last:
            _log.info(
                "ota_campaign_targeted",
                campaign_id=campaign.id,
                tenant_id=campaign.tenant_id,
                devices=total,
                seconds=seconds,
            )
        return 0.0 if last else None
