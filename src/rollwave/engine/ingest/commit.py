"""Take in a batch of messages: sort, apply per tenant, count, judge.

Nothing here can be stopped by what devices send.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollwave import metrics
from rollwave.domain.campaign import CampaignRef
from rollwave.domain.events import DEVICE, AttemptFailed, Entry
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.ids import CampaignId, DeviceId, TenantId
from rollwave.domain.reports import coalesce, outcome
from rollwave.domain.reports.outcome import Outcome, Tally
from rollwave.domain.reports.parse import Report
from rollwave.domain.retry import Reason
from rollwave.engine import stop
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.ingest import apply
from rollwave.engine.ingest.apply import pauses
from rollwave.engine.ingest.classify import Classifier, Share, UnsentReports
from rollwave.engine.ingest.many_tenants import TENANTS_PER_LANE, ManyTenants
from rollwave.engine.locked_campaign import under_policy
from rollwave.engine.stop import Stopped
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.settings import Settings
from rollwave.store import campaigns, events, executions, quarantine
from rollwave.store.database import Connection, Pool, tenant_transaction
from rollwave.store.executions import Effect
from rollwave.store.outage import ValueRefused, is_away, is_outage

_log = get_logger("listener")

MAX_TENANTS_IN_PARALLEL = 4
"""Tenants whose share of a batch is committed at the same time."""


class Ingest:
    """Keeps nothing between batches but what its sorter remembers, and need not."""

    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        on_question: Callable[[TenantId, DeviceId], None] | None = None,
        *,
        tenants_per_lane: int = TENANTS_PER_LANE,
    ) -> None:
        """``tenants_per_lane``: tenants for which another transaction at the same time is worth while."""
        self._sorter = Classifier(on_question)
        self._pool = pool
        self._settings = settings
        self._delays = Delays()
        self._unsent = UnsentReports()
        self._together = ManyTenants(pool, settings, self._sorter, self._unsent, tenants_per_lane=tenants_per_lane)
        self._turn = asyncio.Lock()

    @property
    def fault(self) -> str:
        """Why reports cannot be written, where that is no outage; empty: they can."""
        return self._delays.fault

    def forget(self) -> None:
        """Take no report that comes from now on for a repetition: what came before may never have been written."""
        self._sorter.forget()
        self._delays.forget()

    async def take_in(self, batch: Sequence[Incoming], *, behind: bool = False) -> list[CampaignRef]:
        """Commit what a batch says, trying again until that has succeeded: no error drops a report.

        Called for one batch while another is being written, it sorts its messages and waits: what a device said first
        is written first. ``behind``: more comes than can be written, so that what devices merely repeat is left out.
        Returns the campaigns in which every device sent to is terminal now: they may complete, or go on.
        """
        started = time.perf_counter()
        outcomes: Counter[Outcome] = Counter()
        shares = await self._sort(batch, outcomes, behind=behind)
        async with self._turn:
            for pause in pauses():
                if shares is not None:
                    break
                await asyncio.sleep(pause)
                shares = await self._sort(batch, outcomes, behind=behind)
            await reach(Failpoint.PARSED)
            touched = await self._write(shares or {}, outcomes)
        for each, number in outcomes.items():
            metrics.reports.labels(each.value).inc(number)
        metrics.batch_size.observe(len(batch))
        metrics.batch_seconds.observe(time.perf_counter() - started)
        return touched

    async def _sort(
        self, batch: Sequence[Incoming], outcomes: Counter[Outcome], *, behind: bool
    ) -> dict[TenantId, Share] | None:
        """None: that has failed, and is to be tried again."""
        seen: Counter[Outcome] = Counter()
        try:
            await reach(Failpoint.SORTING)
            shares = self._sorter.sort(batch, seen, behind=behind)
        except Exception as error:  # noqa: BLE001  whatever it is, the reports are kept
            self._delays.failed("sorting", error)
            self._sorter.forget()
            return None
        self._delays.over("sorting")
        outcomes.update(seen)
        return shares

    async def _write(self, shares: dict[TenantId, Share], outcomes: Counter[Outcome]) -> list[CampaignRef]:
        limit = asyncio.Semaphore(MAX_TENANTS_IN_PARALLEL)

        async def persist(tenant_id: TenantId, share: Share) -> list[CampaignRef]:
            async with limit:
                return await self._persist(tenant_id, share, outcomes)

        left, touched = await self._together.write(shares, outcomes)
        async with asyncio.TaskGroup() as writing_left:
            tasks = [writing_left.create_task(persist(*each)) for each in left.items()]
        for task in tasks:
            touched += task.result()
        return touched

    async def _persist(self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome]) -> list[CampaignRef]:
        for number, pause in enumerate(pauses()):
            try:
                # What a host's deferred constraint refuses at the commit, the statement is to say.
                refs = await self._apply(tenant_id, share, outcomes, checks_at_once=number > 0)
            except ValueRefused as refusal:
                return await self._isolate(tenant_id, share, outcomes, refusal)
            except Exception as error:  # noqa: BLE001  an outage or a fault of ours: the reports are kept
                self._delays.failed(tenant_id, error, tenant_id=tenant_id)
                await asyncio.sleep(pause)
            else:
                self._delays.over(tenant_id)
                return refs
        raise AssertionError("the pauses never end")

    async def _isolate(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], refusal: ValueRefused
    ) -> list[CampaignRef]:
        """One value that PostgreSQL refuses must not hold up its neighbours: halve until it is alone.

        Then its words go: a host's column may be narrower than ours. What is refused without any is dropped.
        """
        if share.samples:  # they matter least
            return await self._persist(tenant_id, Share(share.reports), outcomes)
        if len(share.reports) == 1:
            [(device_id, said)] = share.reports
            if said.error:
                shorter = replace(said, error=said.error[: len(said.error) // 2] or None)
                return await self._persist(tenant_id, Share([(device_id, shorter)]), outcomes)
        if len(share.reports) <= 1:
            if self._sorter.may_log(Outcome.INVALID):
                _log.error("ota_status_invalid_data", tenant_id=tenant_id, error=str(refusal))
            outcomes[Outcome.INVALID] += len(share.reports)
            self._delays.over(tenant_id)
            return []
        middle = len(share.reports) // 2
        first = await self._persist(tenant_id, Share(share.reports[:middle]), outcomes)
        return first + await self._persist(tenant_id, Share(share.reports[middle:]), outcomes)

    async def _apply(
        self, tenant_id: TenantId, share: Share, outcomes: Counter[Outcome], *, checks_at_once: bool = False
    ) -> list[CampaignRef]:
        seen: Counter[Outcome] = Counter()
        stopped: list[Stopped] = []
        tally: Tally = Counter()
        failures: list[Entry[AttemptFailed]] = []
        rounds = coalesce.one_per_execution(share.reports)
        seen[Outcome.COALESCED] = len(share.reports) - sum(len(each) for each in rounds)
        async with tenant_transaction(
            self._pool, tenant_id, generic_plans=True, checks_at_once=checks_at_once
        ) as connection:
            for reports in rounds:
                moved, failed = await self._apply_round(connection, tenant_id, reports, seen)
                tally.update(moved)
                failures += failed
            await reach(Failpoint.REPORTS_APPLIED)
            ended = outcome.ended(tally)
            counted = await campaigns.count(
                connection, tenant_id, tally, also={CampaignId(each.campaign_id) for each in failures}
            )
            standings = [each for each in counted if each.campaign_id in ended]
            await events.append_failed_attempts(connection, tenant_id, failures)
            for standing in standings:
                halt = await stop.judge(connection, tenant_id, standing)
                stopped += [halt] if halt else []
            if share.samples:
                await quarantine.keep(connection, tenant_id, share.samples)
            await reach(Failpoint.REPORTS_WRITTEN)
        outcomes.update(seen)
        for each in stopped:
            each.announce()
        return apply.touched(tenant_id, standings, stopped)

    async def _apply_round(
        self,
        connection: Connection,
        tenant_id: TenantId,
        reports: Sequence[tuple[DeviceId, Report]],
        seen: Counter[Outcome],
    ) -> tuple[Tally, list[Entry[AttemptFailed]]]:
        """Apply one report an execution; returns what moved, and the attempts that failed."""
        settings = self._settings
        began = time.monotonic()
        effects = await executions.apply_reports(
            connection, tenant_id, reports, apply.times_of(settings), max_attempts=settings.max_attempts
        )
        failures: list[Entry[AttemptFailed]] = []
        for (device_id, said), effect in zip(reports, effects, strict=True):
            became = outcome.outcome(said, was=effect.was, attempt=effect.attempt, applied=effect.applied)
            seen[became] += 1
            if effect.applied and effect.patience is not None:
                self._sorter.wrote(tenant_id, device_id, said, at=began, patience=effect.patience)
            if became is Outcome.UNKNOWN and self._sorter.may_log(became):
                # A made-up campaign, or another tenant's: row-level security makes the two look alike.
                _log.warning(
                    "ota_status_unknown", tenant_id=tenant_id, device_id=device_id, campaign_id=said.campaign_id
                )
            if became is Outcome.NOT_SENT:
                self._unsent.note(tenant_id, device_id, said)
            if effect.applied and said.status is ExecutionStatus.FAILED:
                failures.append(_failed_attempt(device_id, said, effect))
        await self._postpone(connection, tenant_id, [each for each in failures if not each.event.final])
        moved = outcome.tally(
            (said.campaign_id, effect.was, effect.became) for (_, said), effect in zip(reports, effects, strict=True)
        )
        return moved, failures

    async def _postpone(
        self, connection: Connection, tenant_id: TenantId, retried: Sequence[Entry[AttemptFailed]]
    ) -> None:
        """Set the delay of each device that gets another attempt, by its campaign's policy."""
        for campaign_id in {each.campaign_id for each in retried}:
            campaign = await campaigns.get(connection, tenant_id, campaign_id)
            # One whose policy cannot be read is about to be paused; the device just must not be lost.
            policy = under_policy(campaign, self._settings).policy
            delays = []
            for each in retried:
                if each.campaign_id == campaign_id and each.event.cause is not None:
                    luck = random.random()  # noqa: S311  spreads load only
                    delay = policy.retry.delay_of(each.event.attempt, luck=luck)
                    delays.append((DeviceId(each.event.device_id), each.event.cause, delay))
            await executions.postpone(connection, campaign, delays, in_all=policy.device_timeout)


def _failed_attempt(device_id: DeviceId, said: Report, effect: Effect) -> Entry[AttemptFailed]:
    failed = AttemptFailed(
        effect.attempt or 1,
        said.error or "the device gave no reason",
        effect.reason or Reason.REPORTED,
        final=not effect.retried,
        device_id=device_id,
    )
    return Entry(said.campaign_id, failed, DEVICE)


_log = get_logger("listener")


@dataclass(frozen=True, slots=True)
class _Delay:
    kind: str
    since: float
    is_fault: bool


class Delays:
    """Notes each failed try of a piece of work by its name, logs each kind of error once, and says what is wrong."""

    def __init__(self) -> None:
        self._delays: dict[str, _Delay] = {}

    @property
    def fault(self) -> str:
        """What is wrong and since when, for anybody to read. Empty: nothing, or an outage, which passes by itself."""
        faults = [each for each in self._delays.values() if each.is_fault]
        if not faults:
            return ""
        first = min(faults, key=lambda each: each.since)
        return f"cannot be written: {first.kind}, for {time.monotonic() - first.since:.0f} s; see the log"

    def failed(self, work: str, error: Exception, **fields: object) -> None:
        """Note that ``work`` has failed. An error that is no outage is logged with its traceback."""
        before = self._delays.get(work)
        kind = type(error).__name__
        fault = not is_outage(error)
        since = before.since if before is not None and before.is_fault else time.monotonic()
        self._delays[work] = _Delay(kind, since, fault)
        if is_away(error) or (before is not None and before.kind == kind):
            return  # that the database is away, the pool has said
        _log.error("ota_reports_delayed", error=f"{kind}: {error}", exc_info=error if fault else None, **fields)

    def forget(self) -> None:
        """What has failed was given up: somebody else does it."""
        self._delays.clear()

    def over(self, work: str) -> None:
        """``work`` has succeeded: the next failure is news."""
        self._delays.pop(work, None)
