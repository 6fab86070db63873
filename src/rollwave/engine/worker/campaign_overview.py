"""The overview of a campaign, for the pages and alarms of a host."""

from __future__ import annotations

from typing import Any

from rollwave.engine.overview import overview
from rollwave.engine.worker.host_pool import host_pool_of
from rollwave.errors import DatabaseUnavailable
from rollwave.settings import Settings
from rollwave.store.database import Pool
from rollwave.store.outage import in_words, is_outage


async def campaign_overview(
    pool: Pool, tenant_id: str, campaign_id: int, *, settings: Settings | None = None
) -> dict[str, Any]:
    """All that the console's page of a campaign shows, read in one transaction.

    It has the fields of ``GET …/campaigns/{id}/overview``; times are ``datetime`` in UTC. It may be called in the
    process that runs the two coroutines, and in any other. It costs about the same for ten devices as for a million.

    Args:
        settings: used instead of the environment. The same as for the two coroutines.

    Raises:
        NotFound: this tenant has no such campaign.
        ConfigurationError: a setting cannot be used.
        DatabaseUnavailable: the database does not answer.
    """
    host = host_pool_of(pool)
    host.note_use()
    found = settings or host.last_settings or Settings.load()
    try:
        return await overview(host.pool, found, tenant_id, campaign_id, host.top_causes)
    except Exception as error:
        if is_outage(error):
            raise DatabaseUnavailable(f"the database cannot be used: {in_words(error)}") from error
        raise
