"""What writing one tenant's reports and writing many tenants' have in common."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

from rollwave.domain.campaign import FINAL, CampaignRef
from rollwave.domain.ids import TenantId
from rollwave.engine.stop import Stopped
from rollwave.settings import Settings
from rollwave.store.campaigns import Standing
from rollwave.store.executions import Times

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0
"""Seconds before a batch that could not be written is tried again, doubled from the first to the last."""


def pauses() -> Iterator[float]:
    """Seconds to wait after each failed try."""
    delay = FIRST_RETRY_SECONDS
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  no secret depends on it
        delay = min(LAST_RETRY_SECONDS, delay * 2)


def times_of(settings: Settings) -> Times:
    """What a device that has reported gets, where its campaign says nothing else."""
    return Times(settings.progress_timeout, settings.progress_timeout, settings.device_timeout)


def touched(tenant_id: TenantId, standings: Sequence[Standing], stopped: Collection[Stopped]) -> list[CampaignRef]:
    """The campaigns in which every device sent to is terminal now, but for those just stopped."""
    over = {each.standing.campaign_id for each in stopped if each.tenant_id == tenant_id}
    return [
        CampaignRef(tenant_id, each.campaign_id, each.status)
        for each in standings
        if each.status not in FINAL and each.campaign_id not in over and each.succeeded + each.failed >= each.sent
    ]
