"""Gives failed devices another attempt, on an operator's request: in batches, so that no lock is held for long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rollwave import metrics
from rollwave.domain.campaign import CampaignStatus
from rollwave.domain.event import Event
from rollwave.domain.events import DeviceRetried, DevicesRetried, Entry
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, is_valid_id
from rollwave.domain.reports.outcome import Tally
from rollwave.engine import budgets
from rollwave.errors import Conflict
from rollwave.store import campaigns, counters, events, retries, waves
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.retries import Which

MAX_DEVICES_PER_BATCH = 2000
"""Maximum number of devices that one transaction gives another attempt."""

EVERY = Which()


@dataclass(frozen=True, slots=True)
class Retried:
    """The campaign's status, and the number of devices that get another attempt."""

    status: CampaignStatus
    devices: int


async def retry_failed(
    pool: Pool,
    tenant_id: str,
    campaign_id: int,
    *,
    actor: str,
    which: Which = EVERY,
    per_batch: int = MAX_DEVICES_PER_BATCH,
) -> Retried:
    """Give failed devices of a campaign one more attempt each, also above ``max_attempts``.

    Their device timeout begins again. A paused campaign stays paused. Devices that fail meanwhile may be left out.

    Raises:
        NotFound: the tenant has no such campaign.
        Conflict: the campaign was never started, or has ended. Batches that were committed before are not undone.
    """
    async with tenant_transaction(pool, tenant_id) as connection:
        status = _require_running((await campaigns.get(connection, tenant_id, campaign_id)).status, campaign_id)
    number, after = 0, ""
    while True:
        async with tenant_transaction(pool, tenant_id, generic_plans=True) as connection:
            devices = await retries.failed(connection, tenant_id, campaign_id, which, after=after, limit=per_batch)
            done = Retried(status, 0)
            if devices:
                done = await _retry(connection, tenant_id, campaign_id, which, devices, actor=actor)
        status, number = done.status, number + done.devices
        metrics.retried.inc(done.devices)
        if len(devices) < per_batch:
            return Retried(status, number)
        after = devices[-1]


async def _retry(
    connection: Connection, tenant_id: str, campaign_id: int, which: Which, devices: list[DeviceId], *, actor: str
) -> Retried:
    """Retry one batch: the devices' rows, then the campaign's, then the cells and the wave."""
    sendable = [each for each in devices if is_valid_id(each)]  # a host may have written the others
    again = await retries.again(connection, tenant_id, campaign_id, which, sendable)
    number = len(again)
    campaign, locked = CampaignId(campaign_id), await campaigns.lock(connection, tenant_id, campaign_id)
    _require_running(locked.status, campaign_id)
    if number and locked.counting:  # otherwise the first count includes them
        tally: Tally = Counter()
        tally[campaign, ExecutionStatus.FAILED] -= number
        tally[campaign, ExecutionStatus.DOWNLOADING] += number
        await counters.count(connection, tenant_id, tally)
    await retries.move_cells(connection, tenant_id, campaign_id, again)
    await waves.retried(connection, locked, sum(bool(each.segment) and each.wave <= locked.wave for each in again))
    await budgets.retried(connection, tenant_id, campaign, again)
    if number:
        written: list[Event] = [DevicesRetried(number, which.reason, which.code)]
        written += [DeviceRetried(each.attempt, device_id=each.device_id) for each in again]
        await events.append_all(connection, tenant_id, [Entry(campaign_id, each, actor) for each in written])
        await campaigns.wake(connection, tenant_id)
    return Retried(locked.status, number)


def _require_running(status: CampaignStatus, campaign_id: int) -> CampaignStatus:
    if status not in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}:
        raise Conflict(
            f"Cannot retry devices of campaign {campaign_id}: it is {status}.",
            hint="Only a RUNNING or PAUSED campaign sends further attempts; create a new campaign to go on.",
        )
    return status
