"""Notes once which versions the devices of a campaign run when it is first sent. Later, nobody could tell."""

from __future__ import annotations

from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.store import from_versions
from rollwave.store.database import Pool, tenant_transaction
from rollwave.store.labels import LabelsUnavailable

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
        """Store the versions, if they are not. A host's view that cannot be used leaves them unknown."""
        if ref.status is not CampaignStatus.RUNNING or being_targeted or ref in self._noted:
            return
        try:
            async with tenant_transaction(self._pool, ref.tenant_id, timeout=_SECONDS) as connection:
                await from_versions.note(connection, ref)
        except LabelsUnavailable:
            pass
        self._noted[ref] = None
        if len(self._noted) > MAX_KEPT:
            del self._noted[next(iter(self._noted))]
