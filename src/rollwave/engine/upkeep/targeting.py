"""Which devices a campaign is for: the members of its group become its executions.

The first ``MAX_DEVICES_PER_BATCH`` do in the transaction that creates the campaign (``commands``): of most groups, that
is all. The rest of a large one follows in batches, each a short transaction of some worker. Until the last of them the
campaign is *being targeted*; whoever sends its commands or looks after it does so under the same lock, and leaves it
alone.

A device that is in the group from the campaign's creation until targeting ends is targeted, once. One that joins or
leaves the group meanwhile may be or may not. An abort stops targeting where it is.
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
    """Targets what is left of a campaign's devices. Any number of workers may: one at a time does."""

    def __init__(self, pool: Pool, *, batch: int = MAX_DEVICES_PER_BATCH) -> None:
        """``batch``: devices targeted in one transaction."""
        self._pool = pool
        self._batch = batch

    async def target(self, ref: CampaignRef) -> float:
        """Target the campaign for a turn. Returns the seconds until it wants to be looked at again; 0: at once."""
        turn_ends = time.monotonic() + TURN_SECONDS
        wait = None
        while wait is None and time.monotonic() < turn_ends:
            try:
                wait = await self._target_batch(ref)
            except targets.DeviceLocked:
                wait = SOON_SECONDS
        return wait or 0.0

    async def _target_batch(self, ref: CampaignRef) -> float | None:
        """One transaction. The batch and the place it goes up to are committed together: no gap, and nobody twice.

        Returns None when the next one may follow, else the seconds until the campaign wants to be looked at again.
        """
        async with targets.transaction(self._pool, ref.tenant_id) as connection:
            campaign = await targets.lock_or_skip(connection, ref.tenant_id, ref.campaign_id)
            if campaign is None:
                return SOON_SECONDS  # another worker is at it
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
