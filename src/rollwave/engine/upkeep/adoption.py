"""Devices that a host's own worker left in progress, taken over: a campaign goes on, and none of them fails for that.

Whenever one is seen: when the campaign is looked at for the first time, and later where the host's worker has not been
stopped or its SQL writes such rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollwave.domain.events import DEVICE, ENGINE, AttemptFailed, Entry, FinishedRestored
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import UNSENDABLE
from rollwave.domain.reports.outcome import Tally
from rollwave.domain.retry import Reason
from rollwave.engine.stop import SKIPPED_BECAUSE
from rollwave.log import get_logger
from rollwave.store import adoption, campaigns, events
from rollwave.store.adoption import Adopted
from rollwave.store.campaigns import Campaign
from rollwave.store.database import Connection

_log = get_logger("upkeep")

MAX_ADOPTED_PER_LOOK = 10_000
"""Devices taken over in one look."""

SKIPPED = (SKIPPED_BECAUSE, UNSENDABLE)
"""What the engine writes down for a device that it never sends to."""


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
    adopted = await adoption.adopt(connection, campaign, patience=progress_timeout, limit=limit, skipped=SKIPPED)
    moved = [each for each in adopted if each.became is not each.was]
    tally: Tally = Counter()
    for each in moved:
        tally.update({(campaign.id, each.was): -1, (campaign.id, each.became): 1})
    if moved and campaign.counting:  # else they are counted with all others, and the host may have counted them before
        await campaigns.count(connection, campaign.tenant_id, tally)
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
