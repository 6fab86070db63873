"""Notes once which versions the devices of a campaign run when it is first sent. Later, nobody could tell."""

from __future__ import annotations

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.log import get_logger
from rollwave.store import from_versions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.labels import LabelsUnavailable
from rollwave.store.outage import is_away

_log = get_logger("upkeep")

MAX_KEPT = 20_000
"""Maximum number of campaigns of which a process knows that it has looked at them."""

_SECONDS = 5.0
"""Maximum time for each statement: the host's view of its devices may be slow."""


class FromVersions:
    """Looks at each running campaign once in the life of a process, outside the campaign's lock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._noted: dict[CampaignRef, None] = {}

    async def note(self, ref: CampaignRef, *, being_targeted: bool) -> None:
        """Store the versions, if they are not. If they cannot be read they stay unknown, and the campaign goes on."""
        if ref.status is not CampaignStatus.RUNNING or being_targeted or ref in self._noted:
            return
        try:
            async with tenant_transaction(self._pool, ref.tenant_id, timeout=_SECONDS) as connection:
                await from_versions.note(connection, ref)
        except LabelsUnavailable:
            pass
        except Exception as error:  # a line of the campaign's page must not keep it from being sent
            if is_away(error):
                raise
            _log.exception("ota_from_versions_failed", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id)
        self._noted[ref] = None
        if len(self._noted) > MAX_KEPT:
            del self._noted[next(iter(self._noted))]
