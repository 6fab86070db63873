"""Campaigns that may go on, let go on at once instead of at the next tick: beside everything else.

To conclude a wave every row of the campaign is read. That is for no other campaign's reports to wait for.
"""

from __future__ import annotations

import asyncio

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.upkeep.gates import Upkeep
from rollwave.log import get_logger
from rollwave.store.outage import is_outage
from rollwave.tasks import end, start

_log = get_logger("listener")

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for the campaigns in hand to be let go."""

MAX_CONCLUDED_IN_PARALLEL = 2
"""Campaigns concluded at the same time: each may keep a connection for as long as its rows are read."""


class Concluder:
    """Looks after each campaign it is told of as a task of its own, one at a time."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self._limit = asyncio.Semaphore(MAX_CONCLUDED_IN_PARALLEL)
        self._told: set[CampaignRef] = set()
        self._in_hand: dict[CampaignRef, asyncio.Task[None]] = {}

    def begin(self, ref: CampaignRef) -> None:
        """Begin, or begin again once what is in hand has ended."""
        name = ref
        self._told.add(name)
        if name not in self._in_hand:
            self._in_hand[name] = start(self._conclude(ref))

    async def cancel(self) -> None:
        """Leave it to the next tick."""
        tasks = list(self._in_hand.values())
        await end(*tasks, within=GIVE_UP_SECONDS)
        self._in_hand.clear()
        self._told.clear()

    async def _conclude(self, ref: CampaignRef) -> None:
        name = ref
        while name in self._told:
            try:
                async with self._limit:
                    self._told.discard(name)
                    await self._upkeep.look_after(ref)
            except Exception as error:  # noqa: BLE001  the next tick does it
                if not is_outage(error):
                    _log.exception("ota_campaign_error", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
        del self._in_hand[name]
