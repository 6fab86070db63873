"""What a host or somebody else's SQL did to a campaign's rows, put right.

Devices that a host's own worker left in progress are taken over whenever one is seen: when the campaign is looked at
for the first time, and later where that worker has not been stopped or its SQL writes such rows. None of them fails
for that. Counters are compared with the rows, and repaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.broker_refusal import LONGEST_REFUSAL_SECONDS
from rollwave.domain.campaign import CampaignRef, CampaignStatus
from rollwave.domain.events import (
    DEVICE,
    ENGINE,
    AttemptFailed,
    CampaignAdopted,
    CountersRepaired,
    Entry,
    FinishedRestored,
)
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import UNSENDABLE
from rollwave.domain.reports.outcome import Tally
from rollwave.domain.retry import Reason
from rollwave.engine import stop
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import SKIPPED_BECAUSE, Stopped
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, events, overdue
from rollwave.store.campaigns import Campaign
from rollwave.store.counters import Adopted, Comparison
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_log = get_logger("upkeep")

CLOCK_SET_BACK_MARGIN = 1.2
"""A row that is due later than this many times the longest wait was dated before the database's clock was set back.

More than 1 + ``domain.execution.LEEWAY``, by which deadlines are later than the silence that is allowed.
"""

MAX_ADOPTED_PER_LOOK = 10_000
"""Devices taken over in one look."""

SKIPPED = (SKIPPED_BECAUSE, UNSENDABLE)
"""What the engine writes down for a device that it never sends to."""


class Counters:
    """Reads every row of a campaign, without the campaign's lock, which is taken only for what there is to repair."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings

    async def reconcile(self, ref: CampaignRef) -> float:
        """If it is time to, compare counters and rows, repair the difference, and judge the campaign on that.

        Returns the seconds until it is time again.
        """
        every = self._settings.reconcile_interval
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            # A negative age is from before the database's clock was set back.
            age = campaign.reconciled_age
            if age is not None and 0 <= age < every:
                return every - age
            await counters.date_reconciliation(connection, campaign)
            policy = under_policy(campaign, self._settings).policy
            longest = max(self._settings.lease, LONGEST_REFUSAL_SECONDS, policy.longest_wait)
            await overdue.bring_forward(
                connection, campaign, longest=CLOCK_SET_BACK_MARGIN * longest, progress_timeout=policy.progress_timeout
            )
        await self.verify(ref)
        return every

    async def verify(self, ref: CampaignRef) -> bool:
        """Compare counters and rows, and repair the difference. False: rows that a host left are taken over first."""
        found = await self._compare(ref)
        return found is not None and (found.agree or await self._repair(ref, found))

    async def count(self, ref: CampaignRef) -> int:
        """Count a campaign's devices by its rows, for the first time: from now on its counters are right.

        Returns how many it has; 0 also where it cannot be counted yet.
        """
        found = await self._compare(ref)
        if found is None:
            return 0
        if not found.agree:
            await self._repair(ref, found)
        return found.devices

    async def _compare(self, ref: CampaignRef) -> Comparison | None:
        """None: what a host left in progress is to be taken over first."""
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            if not campaign.counted and _goes_on(campaign) and await counters.any_left_behind(connection, campaign):
                return None
            await counters.begin_counting(connection, ref.tenant_id, ref.campaign_id)
        async with tenant_transaction(self._pool, ref.tenant_id, timeout=SCAN_TIMEOUT_SECONDS) as connection:
            return await counters.compare(connection, ref.tenant_id, ref.campaign_id)

    async def _repair(self, ref: CampaignRef, found: Comparison) -> bool:
        stopped: Stopped | None = None
        adopted: CampaignAdopted | None = None
        async with tenant_transaction(self._pool, ref.tenant_id) as connection:
            was = await campaigns.lock(connection, ref.tenant_id, ref.campaign_id)
            if not was.counted and not await self._may_adopt(connection, was, found):
                return False
            repaired = await counters.repair(connection, was, found)
            if repaired and found.drifted and was.counted:
                stopped = await self._record_repair(connection, was)
            elif repaired and found.drifted:
                adopted = _what_a_host_did(found)
                stopped = await self._record_adoption(connection, ref, adopted)
        if adopted:
            _log.info(
                "ota_campaign_adopted", campaign_id=ref.campaign_id, tenant_id=ref.tenant_id, **adopted.to_detail()
            )
        if stopped:
            stopped.announce()
        return repaired

    async def _may_adopt(self, connection: Connection, campaign: Campaign, found: Comparison) -> bool:
        """Not before its devices are there, and what a host left in progress is taken over: it is judged right away."""
        if not _goes_on(campaign):
            return True
        # A host that has written down the campaign is about to write down its devices.
        return found.devices > 0 and not await counters.any_left_behind(connection, campaign)

    async def _record_adoption(
        self, connection: Connection, ref: CampaignRef, adopted: CampaignAdopted
    ) -> Stopped | None:
        """Have it in history what a host had done of a campaign by the time it was counted, and judge it by that.

        One of which nothing was sent is like any other that a host writes down.
        """
        await events.append(connection, ref.tenant_id, ref.campaign_id, adopted, actor=ENGINE)
        campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
        return await stop.judge(connection, ref.tenant_id, stop.counters_of(campaign))

    async def _record_repair(self, connection: Connection, was: Campaign) -> Stopped | None:
        """Have it in log and history that counters were repaired, and judge on those."""
        campaign = await campaigns.get(connection, was.tenant_id, was.id)
        _log.warning(
            "ota_counters_repaired",
            campaign_id=campaign.id,
            tenant_id=campaign.tenant_id,
            was=(was.succeeded, was.failed, was.sent),
            counted=(campaign.succeeded, campaign.failed, campaign.sent),
        )
        repaired = CountersRepaired(succeeded=campaign.succeeded, failed=campaign.failed)
        await events.append(connection, campaign.tenant_id, campaign.id, repaired, actor=ENGINE)
        return await stop.judge(connection, campaign.tenant_id, stop.counters_of(campaign))


def _goes_on(campaign: Campaign) -> bool:
    return campaign.status in {CampaignStatus.RUNNING, CampaignStatus.PAUSED}


def _what_a_host_did(found: Comparison) -> CampaignAdopted:
    rows = found.rows
    return CampaignAdopted(
        waiting=rows["pending"],
        in_progress=rows["downloading"] + rows["installing"],
        succeeded=rows["succeeded"],
        failed=rows["failed"],
        skipped=rows["skipped"],
    )


@dataclass(frozen=True, slots=True)
class TakenOver:
    """What taking over came to: there may be ``more`` such devices, and of these, ``any_moved`` to another state.

    Then the counters are to be verified before the campaign is judged: such a device may have been counted before the
    host's worker wrote over it.
    """

    more: bool
    any_moved: bool


async def take_over(
    connection: Connection, campaign: Campaign, *, progress_timeout: float, limit: int = MAX_ADOPTED_PER_LOOK
) -> TakenOver:
    """Give devices left in progress all their time from now on, and end those that had finished.

    Needs the campaign's lock.
    """
    adopted = await counters.adopt(
        connection, campaign, progress_timeout=progress_timeout, limit=limit, skipped=SKIPPED
    )
    moved = [each for each in adopted if each.became is not each.was]
    tally: Tally = Counter()
    for each in moved:
        tally.update({(campaign.id, each.was): -1, (campaign.id, each.became): 1})
    if moved and campaign.counting:  # else they are counted with all others, and the host may have counted them before
        await counters.count(connection, campaign.tenant_id, tally)
    ended = [each for each in moved if each.became in {ExecutionStatus.SUCCESS, ExecutionStatus.FAILED}]
    if ended:
        await _record_finished(connection, campaign, ended)
    return TakenOver(more=len(adopted) == limit, any_moved=bool(moved))


async def _record_finished(connection: Connection, campaign: Campaign, ended: Sequence[Adopted]) -> None:
    failures = [each for each in ended if each.became is ExecutionStatus.FAILED]
    await events.append_failed_attempts(
        connection,
        campaign.tenant_id,
        [_failed_attempt(campaign, each) for each in failures if not each.failed_before],
    )
    restored = FinishedRestored(succeeded=len(ended) - len(failures), failed=len(failures))
    await events.append(connection, campaign.tenant_id, campaign.id, restored, actor=ENGINE)
    if campaign.counted:  # else it is being adopted, which is logged once it is counted
        counts = restored.to_detail()
        _log.info("ota_finished_devices_restored", campaign_id=campaign.id, tenant_id=campaign.tenant_id, **counts)


def _failed_attempt(campaign: Campaign, device: Adopted) -> Entry[AttemptFailed]:
    failed = AttemptFailed(device.attempt, device.error, Reason.REPORTED, final=True, device_id=device.device_id)
    return Entry(campaign.id, failed, DEVICE)
