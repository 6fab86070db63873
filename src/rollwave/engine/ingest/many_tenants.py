"""Small shares of many tenants, in a transaction or two: a thousand tenants cost hardly more round trips than one.

What is unusual is left to a transaction of its tenant's own (``ingest.apply``): a failure, a device that speaks under
two attempts, a value that PostgreSQL refuses, an execution that is not found, rows that somebody else holds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rollwave.domain.campaign import CampaignRef
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports import coalesce, outcome
from rollwave.domain.reports.outcome import Outcome
from rollwave.domain.reports.parse import Report
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest.apply import pauses, times_of, touched
from rollwave.engine.ingest.classify import Classifier, Share, UnsentReports
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.log_once import LogOnce
from rollwave.settings import Settings
from rollwave.store import many_tenants
from rollwave.store.campaigns import Standing
from rollwave.store.database import Connection, Pool, named
from rollwave.store.executions import Effect
from rollwave.store.outage import ValueRefused, is_away, is_outage

_log = get_logger("listener")

MAX_REPORTS_OF_A_SMALL_SHARE = 50
"""Reports of a share that goes with the others. A larger one is cheaper in a statement of its own."""

MAX_LANES, TENANTS_PER_LANE = 2, 100
"""Transactions at the same time, each of other tenants: while PostgreSQL works on one, the other is prepared or noted;
and the tenants for which one is worth while."""

Said: TypeAlias = tuple[TenantId, DeviceId, Report]
Moves: TypeAlias = "dict[TenantId, list[tuple[CampaignId, ExecutionStatus | None, ExecutionStatus | None]]]"


@dataclass(slots=True)
class Written:
    """What was done: campaigns in which every device sent to is terminal now, and what is left to be written."""

    refs: list[CampaignRef] = field(default_factory=list)
    left: list[Said] = field(default_factory=list)


class ManyTenants:
    """Writes what can be written together."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        classifier: Classifier,
        unsent: UnsentReports,
        *,
        tenants_per_lane: int = TENANTS_PER_LANE,
    ) -> None:
        self._tenants_per_lane = tenants_per_lane
        self._pool = pool
        self._log_once = LogOnce()
        self._times = times_of(settings)
        self._classifier = classifier
        self._unsent = unsent

    async def write(
        self, shares: Mapping[TenantId, Share], outcomes: Counter[Outcome]
    ) -> tuple[dict[TenantId, Share], list[CampaignRef]]:
        """Commit what is small and plain; returns the shares that are left, and campaigns that may go on.

        Tries again for as long as the database is away.
        """
        left: dict[TenantId, Share] = {}
        said: list[Said] = []
        for tenant_id, share in shares.items():
            steps = coalesce.one_per_execution(share.reports) if _is_plain(share) else []
            if len(steps) == 1:
                said += [(tenant_id, *each) for each in steps[0]]
                outcomes[Outcome.COALESCED] += len(share.reports) - len(steps[0])
            else:
                left[tenant_id] = share
        refs: list[CampaignRef] = []
        async with asyncio.TaskGroup() as lanes:
            tasks = [lanes.create_task(self._write(lane, outcomes)) for lane in lanes_of(said, self._tenants_per_lane)]
        for written in (task.result() for task in tasks):
            refs += written.refs
            for tenant_id, device_id, report in written.left:
                left.setdefault(tenant_id, Share()).reports.append((device_id, report))
        return left, refs

    async def _write(self, said: Sequence[Said], outcomes: Counter[Outcome]) -> Written:
        tenants = sorted({tenant_id for tenant_id, _, _ in said})
        if len(tenants) < 2:
            return Written(left=list(said))
        for pause in pauses():
            try:
                written = await self._apply(said, outcomes)
            except ValueRefused:
                break
            except Exception as error:  # noqa: BLE001  the reports are kept: each tenant's own transaction tries
                if not is_away(error):
                    if not is_outage(error) and self._log_once.is_new("fault", type(error).__name__):
                        _log.exception("ota_reports_of_many_tenants_failed")
                    return Written(left=list(said))
                await asyncio.sleep(pause)
            else:
                self._log_once.clear("fault")
                return written
        # One value that PostgreSQL refuses must not hold up the others: halve the tenants until its own is alone.
        half = set(tenants[: len(tenants) // 2])
        first = await self._write([each for each in said if each[0] in half], outcomes)
        other = await self._write([each for each in said if each[0] not in half], outcomes)
        return Written(first.refs + other.refs, first.left + other.left)

    async def _apply(self, said: Sequence[Said], outcomes: Counter[Outcome]) -> Written:
        seen: Counter[Outcome] = Counter()
        began = time.monotonic()
        async with many_tenants.transaction(self._pool) as connection:
            effects = await many_tenants.apply_reports(connection, said, self._times)
            moves, left = self._note(said, effects, began, seen)
            tallies = {tenant_id: outcome.tally(each) for tenant_id, each in moves.items()}
            ended = {tenant_id: outcome.ended(tally) for tenant_id, tally in tallies.items()}
            standings: dict[TenantId, list[Standing]] = defaultdict(list)
            for tenant_id, standing in await many_tenants.count(connection, tallies):
                if standing.campaign_id in ended[tenant_id]:
                    standings[tenant_id].append(standing)
            stopped = await _judge(connection, standings)
            await reach(Failpoint.REPORTS_WRITTEN)
        outcomes.update(seen)
        for halt in stopped:
            halt.announce()
        return Written([ref for each in standings.items() for ref in touched(*each, stopped)], left)

    def _note(
        self, said: Iterable[Said], effects: Iterable[Effect], began: float, seen: Counter[Outcome]
    ) -> tuple[Moves, list[Said]]:
        """What moved, of which tenant, and the reports that met no execution, which are looked at again."""
        moves: Moves = defaultdict(list)
        left = []
        for each, effect in zip(said, effects, strict=True):
            tenant_id, device_id, report = each
            if effect.was is None:
                left.append(each)
                continue
            became = outcome.outcome(report, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            seen[became] += 1
            if became is Outcome.NOT_SENT:
                self._unsent.note(tenant_id, device_id, report)
            if effect.applied and effect.patience is not None:
                self._classifier.wrote(tenant_id, device_id, report, at=began, patience=effect.patience)
                moves[tenant_id].append((report.campaign_id, effect.was, effect.became))
        return moves, left


def lanes_of(said: Sequence[Said], tenants_per_lane: int = TENANTS_PER_LANE) -> list[list[Said]]:
    """Each tenant's reports are in one of them."""
    tenants = sorted({tenant_id for tenant_id, _, _ in said})
    lanes = max(1, min(MAX_LANES, len(tenants) // tenants_per_lane))
    lane_of = {tenant_id: number * lanes // len(tenants) for number, tenant_id in enumerate(tenants)}
    parts: list[list[Said]] = [[] for _ in range(lanes)]
    for each in said:
        parts[lane_of[each[0]]].append(each)
    return parts


def _is_plain(share: Share) -> bool:
    small = len(share.reports) <= MAX_REPORTS_OF_A_SMALL_SHARE and not share.samples
    return small and all(report.status is not ExecutionStatus.FAILED for _, report in share.reports)


async def _judge(connection: Connection, standings: Mapping[TenantId, Sequence[Standing]]) -> list[Stopped]:
    stopped = []
    for tenant_id, each in standings.items():
        for standing in each:
            if stop.may_stop(standing):
                async with named(connection, tenant_id):
                    halt = await stop.judge(connection, tenant_id, standing)
                stopped += [halt] if halt else []
    return stopped
