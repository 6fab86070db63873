"""Reports for devices that their campaign has not been sent to: they change nothing, and are logged now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.report import Report
from rollwave.log import get_logger

_log = get_logger("listener")

EVERY = 60.0
"""Seconds between two lines for one campaign, at least."""

CAMPAIGNS = 1000
"""Campaigns of which it is remembered when they were logged last. One that is forgotten is logged as if it were new."""

HINT = (
    "The campaign has not sent this device its command, so the report changes nothing. "
    "Does another system send commands with this campaign id, or was the database restored from a backup?"
)


@dataclass(slots=True)
class _Campaign:
    reports: int = 0
    logged_at: float = -inf


class Unsent:
    """Counts such reports by campaign, and logs the first of a campaign and then at most one a minute."""

    def __init__(self) -> None:
        self._campaigns: dict[tuple[TenantId, int], _Campaign] = {}

    def note(self, tenant_id: TenantId, device_id: DeviceId, said: Report) -> None:
        """One more. ``reports`` in the log is how many came since the line before."""
        now = time.monotonic()
        campaign = self._of(tenant_id, said.campaign_id)
        campaign.reports += 1
        if now - campaign.logged_at < EVERY:
            return
        _log.warning(
            "ota_status_not_sent",
            campaign_id=said.campaign_id,
            tenant_id=tenant_id,
            device_id=device_id,
            status=said.status.value,
            reports=campaign.reports,
            hint=HINT,
        )
        campaign.reports, campaign.logged_at = 0, now

    def _of(self, tenant_id: TenantId, campaign_id: int) -> _Campaign:
        key = tenant_id, campaign_id
        if key not in self._campaigns and len(self._campaigns) >= CAMPAIGNS:
            del self._campaigns[next(iter(self._campaigns))]
        return self._campaigns.setdefault(key, _Campaign())
