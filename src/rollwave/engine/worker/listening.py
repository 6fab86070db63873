"""A listener, and what its reports set going at once: campaigns that may go on, devices that ask for their command."""

from __future__ import annotations

from collections.abc import Sequence

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.backpressure import Backpressure
from rollwave.engine.dispatch.resend import Resender
from rollwave.engine.ingest.listener import Listener
from rollwave.engine.upkeep.gates import Upkeep
from rollwave.engine.worker.keyed_tasks import KeyedTasks
from rollwave.log import get_logger
from rollwave.log_once import Problems
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.outage import is_outage

_log = get_logger("listener")

MAX_CONCLUDED_IN_PARALLEL = 2
"""Campaigns looked after at the same time: each may keep a connection for as long as its rows are read."""

GIVE_UP_SECONDS = 5.0
"""Maximum number of seconds for the campaigns in hand to be let go."""


def make_listener(
    pool: Pool,
    settings: Settings,
    *,
    slot: int = 0,
    backpressure: Backpressure | None = None,
    problems: Problems | None = None,
) -> Listener:
    """A listener for the slot. ``problems``: of the process, where other parts meet the same ones.

    Raises:
        ConfigurationError: a setting cannot be used.
    """
    problems = problems or Problems()
    beside = _Beside(pool, settings, problems)
    return Listener(
        pool,
        settings,
        slot=slot,
        backpressure=backpressure,
        problems=problems,
        on_settled=beside.look_after,
        on_question=beside.resender.ask,
        beside=beside.run,
    )


class _Beside:
    """Goes on beside a listener's session.

    To conclude a wave every row of the campaign is read. That is for no other campaign's reports to wait for.
    """

    def __init__(self, pool: Pool, settings: Settings, problems: Problems) -> None:
        self.resender = Resender(pool, settings, problems)
        self._upkeep = Upkeep(pool, settings)
        self._looks = KeyedTasks(self._look_after, in_parallel=MAX_CONCLUDED_IN_PARALLEL)

    async def run(self) -> None:
        """Answer devices until cancelled. Campaigns in hand are then left to the next look of a worker."""
        try:
            await self.resender.run()
        finally:
            await self._looks.cancel(GIVE_UP_SECONDS)

    def look_after(self, settled: Sequence[CampaignRef]) -> None:
        """Look after campaigns in which every device sent to is terminal, now and not at the next tick."""
        for ref in settled:
            self._looks.start_or_repeat(ref)

    async def _look_after(self, ref: CampaignRef) -> None:
        try:
            async with self._looks.turn(ref):
                await self._upkeep.look_after(ref)
        except Exception as error:  # noqa: BLE001  the next look of a worker does it
            if not is_outage(error):
                _log.exception("ota_campaign_error", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
