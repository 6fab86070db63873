"""Which devices a campaign is for: the members of its group become its executions.

The first ``AT_ONCE`` do in the transaction that creates the campaign: of most groups, that is all. The rest of a large
one follows in batches, each a short transaction of some worker. Until the last of them the campaign is *being
targeted*; whoever sends or looks after it does so under the same lock, and leaves it alone.

Who is in the group from the campaign's creation until it is targeted is its device, once. Who joins or leaves the group
meanwhile may be or not. An abort ends it where it is.
"""

from __future__ import annotations

import time

import asyncpg

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.events import ENGINE, CampaignCreated, CampaignTargeted
from rollwave.domain.ids import CampaignId
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.timing import SOON_SECONDS, TURN_SECONDS
from rollwave.errors import Conflict
from rollwave.log import get_logger
from rollwave.store import events, targets
from rollwave.store.database import Connection, Pool, tenant_transaction

_log = get_logger("targeting")

LOCK_WAIT_SECONDS = 0.5
"""Seconds for which a batch waits for a device that somebody else is writing into the campaign.

It holds the campaign's row, which they may change next: less than PostgreSQL takes to find that two wait in a ring.
"""

MAX_DEVICES_PER_BATCH = 10_000
"""Devices targeted in one transaction: a fifth of a second, for which nobody else moves the campaign."""


async def begin(
    connection: Connection,
    tenant_id: str,
    campaign_id: CampaignId,
    group_id: str,
    device_type: str | None,
    *,
    at_once: int,
    actor: str,
) -> None:
    """Target the first devices of a campaign that this transaction has written down.

    Raises:
        Conflict: firmware for this ``device_type`` (None: any) fits no device of the group.
    """
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


class Targeter:
    """Targets what is left of a campaign's devices. Any number of workers may: one at a time does."""

    def __init__(self, pool: Pool, *, at_once: int = MAX_DEVICES_PER_BATCH) -> None:
        self._pool = pool
        self._at_once = at_once

    async def target(self, ref: CampaignRef) -> float:
        """Target the campaign for a turn. Returns the seconds until it wants to be looked at again; 0: at once."""
        turn_ends = time.monotonic() + TURN_SECONDS
        wait = None
        while wait is None and time.monotonic() < turn_ends:
            try:
                wait = await self._target_batch(ref)
            except asyncpg.LockNotAvailableError:
                wait = SOON_SECONDS
        return wait or 0.0

    async def _target_batch(self, ref: CampaignRef) -> float | None:
        """One transaction. The batch and the place it goes up to are committed together: no gap, and nobody twice.

        Returns None when the next one may follow, else the seconds until the campaign wants to be looked at again.
        """
        async with tenant_transaction(self._pool, ref.tenant_id, lock_timeout=LOCK_WAIT_SECONDS) as connection:
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
                limit=self._at_once,
            )
            last = batch.devices < self._at_once
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
