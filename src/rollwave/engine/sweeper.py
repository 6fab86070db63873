"""Devices that went silent. Those with an attempt left are due again, and the dispatcher claims them; the rest fail."""

from __future__ import annotations

from rollwave.domain.rules import Rules
from rollwave.engine import guard
from rollwave.engine.guard import Stopped
from rollwave.store import campaigns, executions, history
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection
from rollwave.store.history import FailedAttempt

SWEEP_LIMIT = 5000


async def sweep(
    connection: Connection, campaign: Campaign, rules: Rules, *, sends_on: bool
) -> tuple[bool, Stopped | None]:
    """Fail the devices whose deadline passed. Returns whether any did, and the campaign if that stopped it.

    Needs the campaign's lock. A campaign that no longer ``sends_on`` gives nobody another attempt.
    """
    await executions.adopt_in_progress(connection, campaign, patience=rules.patience)
    silent = await executions.fail_silent(
        connection,
        campaign,
        max_attempts=rules.max_attempts if sends_on else 0,
        patience=rules.patience,
        limit=SWEEP_LIMIT,
    )
    if not silent:
        return False, None
    failures = [
        FailedAttempt(campaign.id, device_id, attempt, reason, history.ENGINE) for device_id, attempt, reason in silent
    ]
    await history.append_failed_attempts(connection, campaign.tenant_id, failures)
    [standing] = await campaigns.count(connection, campaign.tenant_id, [(campaign.id, 0, len(silent))])
    return True, await guard.judge(connection, campaign.tenant_id, standing)
