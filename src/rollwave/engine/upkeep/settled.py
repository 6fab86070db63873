"""Looks after campaigns whose devices have all ended, so that they complete without waiting for the next tick."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.upkeep.look import Upkeep
from rollwave.keyed_tasks import KeyedTasks
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.outage import is_outage

_listener_log = get_logger("listener")

MAX_SETTLED_IN_PARALLEL = 2
"""Maximum number of settled campaigns looked after in parallel. Each may use a connection while its rows are read."""

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for the tasks of settled campaigns to end after they were cancelled."""


class SettledCampaigns:
    """Looks after campaigns in which every device that was sent to is terminal, without waiting for the next tick.

    Concluding a wave reads every row of the campaign. Reports of other campaigns must not wait for that.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._upkeep = Upkeep(pool, settings)
        self._looks = KeyedTasks(self._look_after, in_parallel=MAX_SETTLED_IN_PARALLEL)
        self._accepts = False

    @asynccontextmanager
    async def accepted(self) -> AsyncIterator[None]:
        """Accept campaigns during the block. Unfinished work at its end is left to the next look of a worker."""
        self._accepts = True
        try:
            yield
        finally:
            self._accepts = False
            await self._looks.cancel(GIVE_UP_SECONDS)

    def look_after(self, settled: Sequence[CampaignRef]) -> None:
        """Start to look after these campaigns. After the block of :meth:`accepted`, a late call does nothing."""
        for ref in settled if self._accepts else ():
            self._looks.start_or_repeat(ref)

    async def _look_after(self, ref: CampaignRef) -> None:
        try:
            async with self._looks.turn(ref):
                await self._upkeep.look_after(ref)
        except Exception as error:  # noqa: BLE001  the next look of a worker does it
            if not is_outage(error):
                _listener_log.exception("ota_campaign_error", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
