"""Writes the small shares of many tenants in one or two transactions, with hardly more round trips than for one tenant.

Special cases are left to a transaction of their tenant's own (``ingest.apply``): a failure, reports of one device with
two attempts, a value that PostgreSQL refuses, an execution that is not found, rows that another transaction has locked.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports.outcome import Move, Outcome, ended_in, one_per_execution, outcome_of, tally_of
from rollwave.domain.reports.parse import DeviceReport
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest.apply import pauses, seen_of, settled_campaigns, times_of
from rollwave.engine.ingest.classify import Classifier, ReportsOfUnsentDevices, Share
from rollwave.engine.ingest.seen import Said, SeenDevices
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import labels, many_tenants
from rollwave.store.campaign_rows import CampaignCounters
from rollwave.store.database import Connection, Pool, named
from rollwave.store.executions import Effect
from rollwave.store.labels import SeenOfTenant
from rollwave.store.many_tenants import TenantReport
from rollwave.store.outage import ValueRefused, is_away, is_outage

_log = get_logger("listener")

MAX_REPORTS_OF_A_SMALL_SHARE = 50
"""Maximum number of reports in a share that is written together with others. A larger one is cheaper by itself."""

MAX_TRANSACTIONS_IN_PARALLEL, TENANTS_PER_TRANSACTION = 2, 100
"""Maximum number of transactions in parallel, and the minimum number of tenants of each. While PostgreSQL works on one
transaction, this process prepares the other."""


@dataclass(slots=True)
class Written:
    """The result of a commit: the number of reports by outcome, and the campaigns that are ``settled``.

    In a settled campaign every device that was sent to is terminal. ``left``: reports still to be written, by tenant.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    settled: list[CampaignRef] = field(default_factory=list)
    left: dict[TenantId, Share] = field(default_factory=dict)

    def leave(self, reports: Iterable[TenantReport]) -> None:
        """Leave these reports to a transaction of their tenant's own."""
        for tenant_id, device_id, report in reports:
            self.left.setdefault(tenant_id, Share()).reports.append(DeviceReport(device_id, report))


@dataclass(slots=True)
class _Noted:
    """The changes of state by tenant, and the reports whose execution was not found, which are tried again."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    moves: dict[TenantId, list[Move]] = field(default_factory=lambda: defaultdict(list))
    not_found: list[TenantReport] = field(default_factory=list)


class ManyTenants:
    """Writes the small shares of many tenants in one or two transactions."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        classifier: Classifier,
        unsent: ReportsOfUnsentDevices,
        seen: SeenDevices,
        *,
        tenants_per_transaction: int = TENANTS_PER_TRANSACTION,
    ) -> None:
        self._tenants_per_transaction = tenants_per_transaction
        self._pool = pool
        self._log_once = LogOnce()
        self._times = times_of(settings)
        self._classifier = classifier
        self._unsent = unsent
        self._seen = seen

    async def write(self, shares: Mapping[TenantId, Share]) -> Written:
        """Commit the small and plain shares, and try again while the database is unavailable. The others are left."""
        written = Written()
        reports: list[TenantReport] = []
        for tenant_id, share in shares.items():
            passes = one_per_execution(share.reports) if is_plain(share) else []
            if len(passes) == 1:
                reports += [TenantReport(tenant_id, *each) for each in passes[0]]
                written.outcomes[Outcome.COALESCED] += len(share.reports) - len(passes[0])
            else:
                written.left[tenant_id] = share
        async with asyncio.TaskGroup() as transactions:
            for part in split_by_tenant(reports, self._tenants_per_transaction):
                transactions.create_task(self._write(part, written))
        return written

    async def _write(self, reports: Sequence[TenantReport], written: Written) -> None:
        tenants = sorted({tenant_id for tenant_id, _, _ in reports})
        if len(tenants) < 2:
            written.leave(reports)
            return
        for pause in pauses():
            try:
                await self._apply(reports, written)
            except ValueRefused:
                break
            except Exception as error:  # noqa: BLE001  the reports are kept: each tenant's own transaction tries
                if not is_away(error):
                    if not is_outage(error) and self._log_once.is_new("fault", type(error).__name__):
                        _log.exception("ota_reports_of_many_tenants_failed")
                    written.leave(reports)
                    return
                await asyncio.sleep(pause)
            else:
                self._log_once.clear("fault")
                return
        # PostgreSQL refused a value. Halve the tenants until its tenant is alone, so that it delays no other.
        half = set(tenants[: len(tenants) // 2])
        await self._write([each for each in reports if each.tenant_id in half], written)
        await self._write([each for each in reports if each.tenant_id not in half], written)

    async def _apply(self, reports: Sequence[TenantReport], written: Written) -> None:
        """Write the shares in one transaction. Nothing is added to ``written`` before the commit."""
        began = time.monotonic()
        async with many_tenants.transaction(self._pool) as connection:
            effects = await many_tenants.apply_reports(connection, reports, self._times)
            noted = self._note(reports, effects, began)
            seen = self._seen_of(reports, effects)
            if seen:
                each_seen = [SeenOfTenant(tenant_id, each) for tenant_id, of in seen.items() for each in seen_of(of)]
                await labels.record_of_many_tenants(connection, each_seen)
            tallies = {tenant_id: tally_of(each) for tenant_id, each in noted.moves.items()}
            ended = {tenant_id: ended_in(tally) for tenant_id, tally in tallies.items()}
            counted: dict[TenantId, list[CampaignCounters]] = defaultdict(list)
            for tenant_id, counters in await many_tenants.count(connection, tallies):
                if counters.campaign_id in ended[tenant_id]:
                    counted[tenant_id].append(counters)
            stopped = await _judge(connection, counted)
            await reach(Failpoint.REPORTS_WRITTEN)
        for tenant_id, devices in seen.items():
            self._seen.stored(tenant_id, devices)
        for halt in stopped:
            halt.announce()
        written.outcomes.update(noted.outcomes)
        written.settled += [ref for each in counted.items() for ref in settled_campaigns(*each, stopped)]
        written.leave(noted.not_found)

    def _seen_of(
        self, reports: Iterable[TenantReport], effects: Iterable[Effect]
    ) -> dict[TenantId, dict[DeviceId, Said | None]]:
        """What to store about the devices of each tenant. A tenant of which nothing is stored is left out."""
        found: defaultdict[TenantId, dict[DeviceId, Said | None]] = defaultdict(dict)
        for (tenant_id, device_id, report), effect in zip(reports, effects, strict=True):
            self._seen.add(tenant_id, [DeviceReport(device_id, report)], [effect], found[tenant_id])
        return {tenant_id: each for tenant_id, each in found.items() if each}

    def _note(self, reports: Iterable[TenantReport], effects: Iterable[Effect], began: float) -> _Noted:
        noted = _Noted()
        for each, effect in zip(reports, effects, strict=True):
            tenant_id, device_id, report = each
            if effect.was is None:
                noted.not_found.append(each)
                continue
            became = outcome_of(report, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            noted.outcomes[became] += 1
            if became is Outcome.NOT_SENT:
                self._unsent.note(tenant_id, device_id, report)
            if effect.applied and effect.progress_timeout is not None:
                self._classifier.wrote(tenant_id, device_id, report, at=began, progress_timeout=effect.progress_timeout)
                noted.moves[tenant_id].append(Move(report.campaign_id, effect.was, effect.became))
        return noted


def split_by_tenant(
    reports: Sequence[TenantReport], tenants_per_transaction: int = TENANTS_PER_TRANSACTION
) -> list[list[TenantReport]]:
    """Split the reports into transactions. All reports of one tenant are in the same transaction."""
    tenants = sorted({tenant_id for tenant_id, _, _ in reports})
    number_of_parts = max(1, min(MAX_TRANSACTIONS_IN_PARALLEL, len(tenants) // tenants_per_transaction))
    part_of = {tenant_id: number * number_of_parts // len(tenants) for number, tenant_id in enumerate(tenants)}
    parts: list[list[TenantReport]] = [[] for _ in range(number_of_parts)]
    for each in reports:
        parts[part_of[each.tenant_id]].append(each)
    return parts


def is_plain(share: Share) -> bool:
    """Whether the share may be written together with others: it is small, and has no samples and no failure.

    The consequences of a failure (the next attempt, its delay, history) need a transaction of the tenant's own.
    """
    small = len(share.reports) <= MAX_REPORTS_OF_A_SMALL_SHARE and not share.samples
    return small and all(report.status is not ExecutionStatus.FAILED for _, report in share.reports)


async def _judge(connection: Connection, counted: Mapping[TenantId, Sequence[CampaignCounters]]) -> list[Stopped]:
    stopped = []
    for tenant_id, each in counted.items():
        for counters in each:
            if stop.may_stop(counters):
                async with named(connection, tenant_id):
                    halt = await stop.judge(connection, tenant_id, counters)
                stopped += [halt] if halt else []
    return stopped
