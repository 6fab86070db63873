"""Compares a campaign's counters with its rows and repairs them, and takes over devices that a host left in progress.

Devices that a host's own worker left in progress are taken over whenever one is seen: at the first look at the
campaign, and later if that worker still runs or other SQL writes such rows. No device fails because of that.
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
from rollwave.domain.retry import MAX_HELD_SECONDS, Reason
from rollwave.engine import budgets, stop
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import SKIPPED_BECAUSE, Stopped
from rollwave.log import get_logger
from rollwave.settings import Settings
from rollwave.store import campaigns, counters, events, overdue
from rollwave.store.campaign_rows import Campaign
from rollwave.store.counters import Adopted, Comparison
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.time_limits import SCAN_TIMEOUT_SECONDS

_log = get_logger("upkeep")

CLOCK_SET_BACK_MARGIN = 1.2
"""If a row is due later than this factor times the longest wait, the database's clock was set back.

The factor is larger than 1 + ``domain.execution.LEEWAY``, by which deadlines exceed the longest silence.
"""

MAX_ADOPTED_PER_LOOK = 10_000
"""Maximum number of devices taken over in one look."""

SKIPPED = (SKIPPED_BECAUSE, UNSENDABLE)
"""The error messages that the engine writes for devices that it skips."""


class Counters:
    """Compares and repairs counters. Reads every row without the campaign's lock, and locks it only for a repair."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._settings = settings

    async def reconcile(self, ref: CampaignRef) -> float:
        """If it is time, compare counters and rows, repair the difference, and check the guardrail.

        Returns the seconds until the next comparison.
        """
        every = self._settings.reconcile_interval
        async with tenant_transaction(self._pool, ref.tenant_id, queues=True) as connection:
            campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
            # The age is negative if the database's clock was set back.
            age = campaign.reconciled_age
            if age is not None and 0 <= age < every:
                return every - age
            await counters.date_reconciliation(connection, campaign)
            policy = under_policy(campaign, self._settings).policy
            held = 0.0 if policy.document is None else MAX_HELD_SECONDS
            longest = max(self._settings.lease, LONGEST_REFUSAL_SECONDS, policy.longest_wait + held)
            await overdue.bring_forward(
                connection, campaign, longest=CLOCK_SET_BACK_MARGIN * longest, progress_timeout=policy.progress_timeout
            )
        await self.verify(ref)
        return every

    async def verify(self, ref: CampaignRef) -> bool:
        """Compare counters and rows, and repair the difference. False: a host's rows must be taken over first."""
        found = await self._compare(ref)
        return found is not None and (found.agree or await self._repair(ref, found))

    async def count(self, ref: CampaignRef) -> int:
        """Count a campaign's devices from its rows for the first time. From then on its counters are correct.

        Returns the number of devices. 0: there are none, or they cannot be counted yet.
        """
        found = await self._compare(ref)
        if found is None:
            return 0
        if not found.agree:
            await self._repair(ref, found)
        return found.devices

    async def _compare(self, ref: CampaignRef) -> Comparison | None:
        """Compare counters and rows. None: rows that a host left in progress must be taken over first."""
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
            if repaired:
                await budgets.repair(connection, was, found.budgets, lost=any(each.held for each in found.cells))
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
        """Whether it has devices and all rows left in progress are taken over, since adoption checks the guardrail."""
        if not _goes_on(campaign):
            return True
        # A host that has inserted the campaign may be about to insert its devices.
        return found.devices > 0 and not await counters.any_left_behind(connection, campaign)

    async def _record_adoption(
        self, connection: Connection, ref: CampaignRef, adopted: CampaignAdopted
    ) -> Stopped | None:
        """Write the state in which a host left a campaign to history, and check the guardrail.

        Not called if nothing was sent before.
        """
        await events.append(connection, ref.tenant_id, ref.campaign_id, adopted, actor=ENGINE)
        campaign = await campaigns.get(connection, ref.tenant_id, ref.campaign_id)
        return await stop.judge(connection, ref.tenant_id, stop.counters_of(campaign))

    async def _record_repair(self, connection: Connection, was: Campaign) -> Stopped | None:
        """Log that counters were repaired, write it to history, and check the guardrail."""
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
    """The result of taking devices over. ``more``: there may be more of them. ``any_moved``: some changed their state.

    If some changed, the counters must be verified before the campaign is judged: a device may have been counted before
    the host's worker overwrote its row.
    """

    more: bool
    any_moved: bool


async def take_over(
    connection: Connection, campaign: Campaign, *, progress_timeout: float, limit: int = MAX_ADOPTED_PER_LOOK
) -> TakenOver:
    """Start the timeouts of devices that a host left in progress, and restore those that had finished.

    Needs the campaign's lock.
    """
    adopted = await counters.adopt(
        connection, campaign, progress_timeout=progress_timeout, limit=limit, skipped=SKIPPED
    )
    moved = [each for each in adopted if each.became is not each.was]
    tally: Tally = Counter()
    for each in moved:
        tally.update({(campaign.id, each.was): -1, (campaign.id, each.became): 1})
    if moved and campaign.counting:  # otherwise a later count includes them; the host may have counted them before
        await counters.count(connection, campaign.tenant_id, tally)
    # A device that had finished left its cell when it did. The comparison of counters and rows sees to others.
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
    if campaign.counted:  # otherwise the campaign is being adopted, which is logged when it is counted
        counts = restored.to_detail()
        _log.info("ota_finished_devices_restored", campaign_id=campaign.id, tenant_id=campaign.tenant_id, **counts)


def _failed_attempt(campaign: Campaign, device: Adopted) -> Entry[AttemptFailed]:
    failed = AttemptFailed(device.attempt, device.error, Reason.REPORTED, final=True, device_id=device.device_id)
    return Entry(campaign.id, failed, DEVICE)
